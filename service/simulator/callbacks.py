"""Calling the merchant's callback URL: what is called when, signed, and again after a 5xx or no answer."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from random import Random
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit, urlunsplit

import httpx2 as httpx

from service.delivery import Clock
from service.dintero.callback import signed_header
from service.simulator.documents import Json, request_id
from service.simulator.provider import Notification

RETRIES = 20  # after the first attempt; dintero-api.md section 2
TIMEOUT = 10.0  # seconds; likewise
LONGEST_DELAY = 60  # seconds, of delay_callback
SCHEDULE = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds between attempts, the last repeats; the real one is not published


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to reach the merchant. `status` is None when there was no answer; `error` then says why."""

    number: int  # from 1
    method: str
    url: str
    headers: dict[str, str]
    at: datetime
    status: int | None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A callback that is due: the same in every attempt but for its signature's time."""

    method: str
    url: str
    body: Json | None
    delay: float
    delivery: str


def _unheard(_: Attempt) -> None:
    """Be told, and do nothing."""


class Caller:
    """Sends callbacks in the background. `attempts` are all that were made, in order."""

    def __init__(
        self,
        *,
        account_id: str,
        secret: Callable[[], str],
        clock: Clock,
        random: Random,
        client: httpx.AsyncClient,
        tasks: asyncio.TaskGroup,
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
        self.heard = heard
        self._pending: set[asyncio.Task[None]] = set()

    def notify(self, notification: Notification) -> None:
        """Begin a callback if the URL's options ask for one."""
        call = call_for(notification, request_id(self._random))
        if call is None:
            return
        task = self._tasks.create_task(self._deliver(call))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def idle(self) -> None:
        """Wait until no callback is under way."""
        while self._pending:
            await asyncio.wait(set(self._pending))

    def stop(self) -> None:
        """Drop what is under way."""
        for task in self._pending:
            task.cancel()

    async def _deliver(self, call: _Call) -> None:
        if call.delay:
            await self._clock.sleep(call.delay)
        for number in range(1, RETRIES + 2):
            status = await self._attempt(call, number)
            if status is not None and not _again(status):
                return
            await self._clock.sleep(self.schedule[min(number, len(self.schedule)) - 1])

    async def _attempt(self, call: _Call, number: int) -> int | None:
        """Make one try, with a signature of this moment; return the answer's status."""
        at = self._clock.now()
        headers = {"event-delivery": call.delivery, "user-agent": "Dintero-Simulated/1"}
        timestamp = math.floor(at.timestamp())
        if secret := self._secret():
            headers["Dintero-Signature"] = signed_header(secret, self._account_id, call.method, call.url, timestamp)
        content = None
        if call.body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(call.body, ensure_ascii=False).encode()
        status = error = None
        try:
            answer = await self._client.request(call.method, call.url, headers=headers, content=content)
            status = answer.status_code
        except httpx.TransportError as exc:
            error = type(exc).__name__
        attempt = Attempt(
            number=number, method=call.method, url=call.url, headers=headers, at=at, status=status, error=error
        )
        self.attempts.append(attempt)
        self.heard(attempt)
        return status


def _again(status: int) -> bool:
    return status < 200 or status >= 500  # noqa: PLR2004


def call_for(notification: Notification, delivery: str) -> _Call | None:
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
        body = notification.transaction | session
    delay = options.get("delay_callback", ["0"])[0]
    return _Call(
        method=method,
        url=_addressed(url, notification, options.get("sid_parameter_name", ["session_id"])[0]),
        body=body,
        delay=min(int(delay), LONGEST_DELAY) if delay.isdecimal() else 0,
        delivery=delivery,
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
            schedule=schedule,
            heard=heard,
        )
        try:
            yield caller
        finally:
            caller.stop()
