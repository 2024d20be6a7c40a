"""Telling people: what is urgent within minutes and everything each morning, by each way once and never not at all."""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Protocol

import structlog

from service.concerns import DIGEST_AT, URGENT, Heading, Notice, digest, in_order, outage_notice, silence, urgent_notice
from service.delivery import Clock, Concern, Condition, DeliveryFailure, Job, News, Store, StoreUnavailable
from service.metrics import Metrics

LOOK_EVERY = 60.0
"""Seconds between two looks for what is to be told; what was found meanwhile goes in one message."""
_MORE_AFTER = 900.0  # seconds before more of the same condition is told
_TRIED_AGAIN_AFTER = (60.0, 300.0, 900.0)  # seconds after a way has failed: each try is a sign-in at the mail server
_AWAY_FOR_LONG = 300.0  # seconds without the store after which people are told by whoever notices
_log = structlog.get_logger()


class Way(Protocol):
    """One way to tell people."""

    @property
    def name(self) -> str:
        """What the record calls it."""

    async def tell(self, notice: Notice, key: str) -> None:
        """Hand it over; raises `DeliveryFailure`. The same `key` is the same message once more."""


class Mails(Protocol):
    """What hands a plain mail to a few addresses."""

    async def send(self, subject: str, text: str, *, key: str, dated: datetime) -> tuple[str, ...]:
        """Return why some addresses did not get it; raises `DeliveryFailure` when none did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByMail:
    """The way over ALERT_TO."""

    mails: Mails
    metrics: Metrics
    name: str = "mail"

    async def tell(self, notice: Notice, key: str) -> None:
        """As `Way.tell`; it is told when one address has it."""
        for reason in await self.mails.send(notice.subject, notice.text, key=key, dated=notice.at):
            _failed(self.metrics, way=self.name, kind=notice.kind, reason=reason)


def _failed(metrics: Metrics, **about: object) -> None:
    metrics.alarm("alarm.alert_failed")
    _log.warning("alarm.alert_failed", **about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookout:
    """What a person should know: what the record tells, and that it has been silent for too long."""

    store: Store
    clock: Clock
    account_id: str
    timezone: tzinfo
    silence_hours: float

    async def concerns(self) -> tuple[Concern, ...]:
        """Return everything, what matters most first; raises `StoreUnavailable`."""
        return in_order([*await self.store.concerns(self.account_id), *await self._silence()])

    async def news(self, way: str, conditions: Iterable[Condition] = URGENT) -> tuple[News, ...]:
        """Return what of these conditions is not told yet by this way; raises `StoreUnavailable`."""
        wanted = [Concern(condition=condition, count=0, cases=()) for condition in conditions]
        return await self.store.news(self.account_id, way, [*wanted, *await self._silence()])

    async def _silence(self) -> tuple[Concern, ...]:
        if not self.silence_hours:
            return ()
        calls, now = await self.store.calls(self.account_id), self.clock.now()
        found = silence(calls, hours=self.silence_hours, now=now, zone=self.timezone)
        return (found,) if found else ()


class Telling:
    """Tells one way's people. Each way has its own place in the record, so that one that fails holds up no other.

    What was told is written after the telling: a process that dies in between tells it again.
    """

    def __init__(self, way: Way, *, lookout: Lookout, metrics: Metrics, merchant: str) -> None:
        self.way = way
        self.name = f"alerts:{way.name}"
        self._lookout = lookout
        self._clock = lookout.clock
        self._metrics = metrics
        self._merchant = merchant
        self._failures = 0
        self._not_before = lookout.clock.monotonic()

    async def turn(self, job: Job) -> str | None:
        """Tell what there is to tell; the note is the day whose digest is told, or had nothing to tell."""
        await self._tell_urgent(job.now)
        return await self._tell_digest(job.note)

    async def _tell_urgent(self, now: datetime) -> None:
        """Tell what is new; of a condition that was told just now, more waits for what may come yet."""
        name = self.way.name
        news = await self._lookout.news(name)
        if not any(one.told_at is None or (now - one.told_at).total_seconds() >= _MORE_AFTER for one in news):
            return
        notice = urgent_notice([one.concern for one in news], self._heading())
        upto = max(one.latest for one in news)
        if await self._tell(notice, f"urgent {upto.isoformat()}"):
            await self._lookout.store.told(self._lookout.account_id, name, upto)

    async def _tell_digest(self, told: str | None) -> str | None:
        """Tell everything once a day from 7:30 on, beginning with the day after the first turn ever."""
        local = self._clock.now().astimezone(self._lookout.timezone)
        today = local.date().isoformat()
        if told is None:
            return today
        if local.time() < DIGEST_AT or told == today:
            return told
        notice = digest(await self._lookout.concerns(), self._heading())
        return today if notice is None or await self._tell(notice, f"digest {today}") else told

    async def tell_outage(self, reason: str, since: datetime) -> bool:
        """Tell that the record does not answer; return whether it was handed over."""
        return await self._tell(outage_notice(reason, since, self._heading()), f"outage {since.isoformat()}")

    def _heading(self) -> Heading:
        lookout = self._lookout
        return Heading(
            account_id=lookout.account_id,
            merchant=self._merchant,
            now=lookout.clock.now(),
            timezone=lookout.timezone,
        )

    async def _tell(self, notice: Notice, what: str) -> bool:
        if self._clock.monotonic() < self._not_before:
            return False  # it failed just now
        key = hashlib.sha256(f"{self._lookout.account_id} {self.way.name} {what}".encode()).hexdigest()
        try:
            await self.way.tell(notice, key)
        except DeliveryFailure as exc:
            wait = _TRIED_AGAIN_AFTER[min(self._failures, len(_TRIED_AGAIN_AFTER) - 1)]
            self._failures += 1
            self._not_before = self._clock.monotonic() + wait
            _failed(self._metrics, way=self.way.name, kind=notice.kind, reason=exc.reason, again_in=wait)
            return False
        self._failures = 0
        _log.info("service.told", way=self.way.name, kind=notice.kind, concerns=len(notice.concerns))
        return True


class Outage:
    """Tells people when the record does not answer: the one trouble that cannot be written into it first.

    So each process that notices tells it, once, and forgets that it did when the record answers again.
    """

    def __init__(self, tellings: Sequence[Telling], *, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._tellings = tellings
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._since: datetime | None = None
        self._told: set[str] = set()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Make `run` return."""
        self._stopping.set()

    async def run(self) -> None:
        """Look now and then until `stop`."""
        if not self._tellings:
            await self._stopping.wait()  # what returns while the others run ends the service
        while not self._stopping.is_set():
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - a bug here must not end the service
                self._metrics.alarm("alarm.unexpected_error")
                _log.exception("alarm.unexpected_error", part="outage")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LOOK_EVERY / 2)

    async def look(self) -> None:
        """Ask whether the record answers and commits, and tell when it has not for five minutes."""
        try:
            await self._store.ping()
        except StoreUnavailable as exc:
            now = self._clock.now()
            self._since = self._since or now
            if (now - self._since).total_seconds() >= _AWAY_FOR_LONG:
                await self._tell(str(exc), self._since)
        else:
            self._since = None
            self._told.clear()

    async def _tell(self, reason: str, since: datetime) -> None:
        for telling in self._tellings:
            if telling.way.name not in self._told and await telling.tell_outage(reason, since):
                self._told.add(telling.way.name)
