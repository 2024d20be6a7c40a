"""What is done to a site: processes killed and frozen, databases cut and restarted, everybody's answers bent."""

import asyncio
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import psycopg
import structlog

from service.delivery import Request, StoreUnavailable
from service.simulator.deeds import Answer, Behaviour, Call, Phase, Told, Trouble, Turn
from service.simulator.documents import Refusal
from service.simulator.faults import KINDS, Fault, Kind
from tests.torture.site import Site

_log = structlog.get_logger()

# Those that keep a slot for minutes, or a delivery for longer than the torture, have shorter ones in their place.
_TOO_LONG = (
    *("silent", "slow", "429", "503", "greylisted", "for-now", "later", "callback-late", "timeout"),
    *("bill-left-out", "bill-some-first"),  # billed next month, and shown in an hour: neither comes while we look
)
_SHORT = {
    "429, short": Kind(
        about="too many requests; come again in two seconds",
        at=("read_transaction", "capture", "token", "file"),
        how=Answer(status=429, message="too many requests", retry_after=2),
    ),
    "503, short": Kind(
        about="not available now; come again in a second",
        at=("read_transaction", "capture", "token", "file"),
        how=Answer(status=503, message="temporarily unavailable", retry_after=1),
    ),
    "greylisted, short": Kind(
        about="come again in two seconds",
        at=(Phase.RCPT,),
        how=Behaviour(reply="451 4.7.1 Greylisted, please try again in 2 seconds"),
    ),
    "capture-later, short": Kind(about="202, carried out soon", at=("capture",), how=Turn(later=3)),
    "capture-fails-for-now, short": Kind(
        about="200, but the event failed and says: again in a second",
        at=("capture",),
        how=Turn(
            error={"message": "not now", "retry_policy": {"retry_codes": ["RETRY_AFTER_DELAY"], "retry_after": 1}}
        ),
    ),
    "callback-late, short": Kind(about="it is sent late", at=("callback",), how=Call(late=5)),
    "reply slow": Kind(about="the reply takes a while", at=tuple(Phase), how=Behaviour(delay=1.5)),
}
# Always there: most of a send's or a capture's time is between its effect and the answer, so that kills fall there.
_ALWAYS = {
    "mail taken, reply slow": Kind(about="the reply takes a while", at=(Phase.CONTENT,), how=Behaviour(delay=1)),
    "captured, answer slow": Kind(
        about="the answer takes a while", at=("capture",), how=Answer(after=True, body="usual", delay=1)
    ),
}
# Those of SMS providers and of the ERP strike in the demo's alone; here the channels' peers are bent in their own way.
_OURS = {n: k for n, k in KINDS.items() if not isinstance(k.how, Trouble | Told)}
FAULTS: dict[str, Kind] = {n: k for n, k in _OURS.items() if not any(word in n for word in _TOO_LONG)} | _SHORT


class Chaos:
    """Does something bad every now and then, drawn from the site's own seeded source."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._random: Random = site.random
        self.done: dict[str, int] = {}
        database = self._cut_connections if site.database_url.startswith("postgresql") else self._lock_file
        self._deeds: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (4, self._kill),
            (2, self._freeze),
            (1, self._stop_kindly),
            (8, self._bend_answers),
            (8, self._bend_channels),
            (2, self._mend_answers),
            (2, self._void_or_pay),
            (2, self._operate),
            (2, self._bill),
            (2, database),
        ]

    async def rage(self, until: Callable[[], bool]) -> None:
        """Go on until the time is over."""
        await self._mend_answers()
        deeds = [deed for weight, deed in self._deeds for _ in range(weight)]
        while not until():
            deed = self._random.choice(deeds)
            name = deed.__name__.strip("_")
            self.done[name] = self.done.get(name, 0) + 1
            await deed()
            await asyncio.sleep(self._random.uniform(0.1, 1.5))

    async def _kill(self) -> None:
        self._random.choice(self._site.replicas).send(signal.SIGKILL)

    async def _stop_kindly(self) -> None:
        self._random.choice(self._site.replicas).send(signal.SIGTERM)

    async def _freeze(self) -> None:
        """Stop a process for longer than its leases, mostly, and let it go on as if nothing had been."""
        replica = self._random.choice(self._site.replicas)
        if replica.send(signal.SIGSTOP):
            await asyncio.sleep(self._random.uniform(0.5, 5))
            replica.send(signal.SIGCONT)

    async def _bend_answers(self) -> None:
        name = self._random.choice(sorted(FAULTS))
        fault = Fault(name=name, count=self._random.randint(1, 6), probability=self._random.choice((1, 0.3)))
        self._site.faults.commit(fault, FAULTS[name])

    async def _bend_channels(self) -> None:
        self._site.peers.bend(self._random)

    async def _mend_answers(self) -> None:
        """Let everybody answer as they should again: what a paused lane does not meet would else heap up before it."""
        self._site.faults.clear()
        self._site.peers.mend()
        for name, kind in _ALWAYS.items():
            self._site.faults.commit(Fault(name=name, probability=0.5), kind)

    async def _void_or_pay(self) -> None:
        if not self._site.sold:
            return
        provider, id_ = self._site.running.provider, self._random.choice(self._site.sold)
        with suppress(Refusal):
            self._random.choice((provider.void, provider.pay))(id_)

    async def _bill(self) -> None:
        """Bill what was bought until now: what comes later to one of these groups gets an invoice of its own."""
        with suppress(StoreUnavailable):
            await self._site.bill()

    async def _operate(self) -> None:
        """Do what an operator does, on any delivery."""
        if not self._site.sold:
            return
        id_ = self._random.choice(self._site.sold)
        request = Request(by="torture", at=self._site.running.provider.clock.now(), reason="asked to")
        act = self._random.choice(("retry", "resend", "cancel", "delivered", "not delivered"))
        witness, store = self._site.witness, self._site.store
        try:
            if act in ("resend", "not delivered"):
                witness.asked[id_] += 1
            if act == "delivered":
                witness.stated.add(id_)
            if act.endswith("delivered"):
                await store.resolve(id_, request, delivered=act == "delivered")
            else:
                await getattr(store, act)(id_, request)
            if act == "cancel" and id_ in self._site.bought:  # or it is billed with its group all the same
                with suppress(Refusal):
                    self._site.running.provider.void(id_)
        except (KeyError, StoreUnavailable) as exc:  # not known yet, or the database is being tortured
            _log.debug("torture.operator", act=act, reason=type(exc).__name__)

    async def _cut_connections(self) -> None:
        await asyncio.to_thread(_cut, self._site.database_url)

    async def _lock_file(self) -> None:
        path = self._site.database_url.removeprefix("sqlite:///")
        await asyncio.to_thread(_lock, path, self._random.uniform(0.1, 2.5))


def _cut(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def _lock(path: str, seconds: float) -> None:
    import time  # noqa: PLC0415

    connection: Any = sqlite3.connect(path, timeout=5, isolation_level=None)
    try:
        with suppress(sqlite3.OperationalError):  # others are quicker for five seconds: then they have it
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
    finally:
        connection.close()
