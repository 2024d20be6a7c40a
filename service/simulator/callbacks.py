"""Calling the merchant's callback URL: what is called when, signed, and again after a 5xx or no answer."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from random import Random
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit, urlunsplit

import httpx2 as httpx

from service.delivery import Clock
from service.dintero.callback import signed_header
from service.simulator.deeds import Call
from service.simulator.documents import request_id
from service.simulator.faults import Faults
from service.simulator.notices import Notification, Outgoing

RETRIES = 20  # after the first attempt; dintero-api.md section 2
TIMEOUT = 10.0  # seconds; likewise
LONGEST_DELAY = 60  # seconds, of delay_callback
SCHEDULE = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between attempts, the last repeats; the real one is not published


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to reach the merchant. `status` is None when there was no answer; `error` then says why."""

    number: int  # from 1; 0 is a stranger's
    method: str
    url: str
    headers: dict[str, str]
    at: datetime
    status: int | None
    error: str | None = None


def _unheard(_: Attempt) -> None:
    """Be told, and do nothing."""


class Caller:
    """Sends callbacks and webhooks in the background. `attempts` are all that were made, in order."""

    def __init__(
        self,
        *,
        account_id: str,
        secret: Callable[[], str],
        clock: Clock,
        random: Random,
        client: httpx.AsyncClient,
        tasks: asyncio.TaskGroup,
        faults: Faults,
        schedule: Sequence[float] = SCHEDULE,
        heard: Callable[[Attempt], None] = _unheard,
    ) -> None:
        self.attempts: list[Attempt] = []
        self.schedule = schedule
        self._account_id = account_id
        self._secret = secret
        self._clock = clock
        self._random = random
        self._client = client
        self._tasks = tasks
        self._faults = faults
        self.heard = heard
        self._pending: set[asyncio.Task[None]] = set()
        self._held: list[Outgoing] = []

    def notify(self, notification: Notification) -> None:
        """Begin a callback if the URL's options ask for one."""
        outgoing = call_for(notification, request_id(self._random), self._signature)
        if outgoing is not None:
            self.send(outgoing)

    def send(self, outgoing: Outgoing) -> None:
        """Begin to send, unless something else is asked for; what was held back comes after it."""
        call = self._faults.take(Call, outgoing.point, outgoing.about) or Call()
        if call.held:
            self._held.append(outgoing)
        elif not call.lost:
            after, self._held = self._held, []
            for copy in range(call.copies):
                self._begin(self._in_turn(outgoing, call, after if copy == 0 else []))

    async def idle(self) -> None:
        """Wait until nothing is under way; what is held back is not."""
        while self._pending:
            await asyncio.wait(set(self._pending))

    def stop(self) -> None:
        """Drop what is under way."""
        for task in self._pending:
            task.cancel()

    def _begin(self, sending: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(sending)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _in_turn(self, outgoing: Outgoing, call: Call, after: Sequence[Outgoing]) -> None:
        if call.forged:
            await self._attempt(outgoing, 0, age=0)
        await self._deliver(outgoing, call)
        for held in after:
            await self._deliver(held, Call())

    async def _deliver(self, outgoing: Outgoing, call: Call) -> None:
        if delay := outgoing.delay + call.late:
            await self._clock.sleep(delay)
        for number in range(1, outgoing.tries + 1):
            status = await self._attempt(outgoing, number, age=call.age if number == 1 else 0)
            if outgoing.ended(status):
                return
            await self._clock.sleep(self.schedule[min(number, len(self.schedule)) - 1])

    async def _attempt(self, outgoing: Outgoing, number: int, *, age: float) -> int | None:
        """Make one try, signed now (or `age` seconds ago); return the answer's status."""
        at = self._clock.now()
        signed = outgoing.sign(at - timedelta(seconds=age), number == 0)
        headers = {"user-agent": "Dintero-Simulated/1", **outgoing.headers, **signed}
        status = error = None
        try:
            answer = await self._client.request(outgoing.method, outgoing.url, headers=headers, content=outgoing.body)
            status = answer.status_code
        except httpx.TransportError as exc:
            error = type(exc).__name__
        attempt = Attempt(
            number=number,
            method=outgoing.method,
            url=outgoing.url,
            headers=headers,
            at=at,
            status=status,
            error=error,
        )
        self.attempts.append(attempt)
        self.heard(attempt)
        return status

    def _signature(self, method: str, url: str, at: datetime, forged: bool) -> dict[str, str]:  # noqa: FBT001  see `Outgoing`
        secret = "a stranger's own" if forged else self._secret()
        if not secret:
            return {}
        return {"Dintero-Signature": signed_header(secret, self._account_id, method, url, math.floor(at.timestamp()))}


def _ended(status: int | None) -> bool:
    """Whether a callback needs no further attempt: a 4xx is never tried again (dintero-api.md, 2)."""
    return status is not None and 200 <= status < 500  # noqa: PLR2004


def call_for(
    notification: Notification, delivery: str, signature: Callable[[str, str, datetime, bool], Mapping[str, str]]
) -> Outgoing | None:
    """Return the request that a notification leads to, or None when the URL is missing or its options want none."""
    url = notification.session["url"].get("callback_url")
    if not isinstance(url, str) or not url:
        return None
    options = parse_qs(urlsplit(url).query, keep_blank_values=True)
    if notification.error is not None and "true" not in options.get("report_error", []):
        return None
    if notification.event is not None and notification.event["event"] not in options.get("report_event", []):
        return None
    method = "POST" if "POST" in options.get("method", []) else "GET"
    body = None
    if method == "POST" and notification.transaction is not None:
        session = {"session": notification.session} if "session" in options.get("includes", []) else {}
        body = json.dumps(notification.transaction | session, ensure_ascii=False).encode()
    delay = options.get("delay_callback", ["0"])[0]
    addressed = _addressed(url, notification, options.get("sid_parameter_name", ["session_id"])[0])
    return Outgoing(
        point="callback",
        about=(notification.transaction or {}).get("id", ""),
        method=method,
        url=addressed,
        body=body,
        headers={"event-delivery": delivery} | ({} if body is None else {"content-type": "application/json"}),
        tries=RETRIES + 1,
        sign=partial(signature, method, addressed),
        ended=_ended,
        delay=min(int(delay), LONGEST_DELAY) if delay.isdecimal() else 0,
    )


def _addressed(url: str, notification: Notification, session_name: str) -> str:
    """Return the callback URL with its own parameters echoed and the provider's added."""
    split = urlsplit(url)
    transaction, event = notification.transaction or {}, notification.event or {}
    added = {
        "transaction_id": transaction.get("id"),
        session_name: notification.session["id"],
        "merchant_reference": notification.session["order"].get("merchant_reference"),
        "time": transaction.get("created_at"),
        "error": notification.error,
        "event": event.get("event"),
        "event_id": event.get("id"),
    }
    pairs = parse_qsl(split.query, keep_blank_values=True)
    pairs += [(name, value) for name, value in added.items() if value is not None]
    return urlunsplit(split._replace(query=urlencode(pairs, quote_via=quote), fragment=""))


@asynccontextmanager
async def open_caller(
    *,
    account_id: str,
    secret: Callable[[], str],
    clock: Clock,
    random: Random,
    faults: Faults,
    schedule: Sequence[float] = SCHEDULE,
    timeout: float = TIMEOUT,  # noqa: ASYNC109  the provider's own limit, not one on opening
    heard: Callable[[Attempt], None] = _unheard,
) -> AsyncIterator[Caller]:
    """Open a caller; callbacks still under way when the context ends are dropped."""
    async with (
        # The limit is for an answer; waiting here for one's turn is no fault of the merchant's.
        httpx.AsyncClient(timeout=httpx.Timeout(timeout, pool=None), trust_env=False) as client,
        asyncio.TaskGroup() as tasks,
    ):
        caller = Caller(
            account_id=account_id,
            secret=secret,
            clock=clock,
            random=random,
            client=client,
            tasks=tasks,
            faults=faults,
            schedule=schedule,
            heard=heard,
        )
        try:
            yield caller
        finally:
            caller.stop()
