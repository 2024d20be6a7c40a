"""Values for the tests of the store, and the few things that they do to it again and again."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from service.delivery import (
    PROVIDER_LANE,
    Arrival,
    Capture,
    Claim,
    Clock,
    Delivery,
    Entry,
    Outcome,
    Proof,
    Purpose,
    Request,
    Result,
    Schedule,
    Send,
    Settled,
    Step,
    Store,
)
from service.store import SqlStore
from service.store.book import Book
from service.store.writer import Write

ACCOUNT = "T12345678"
AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
NEVER = Schedule(due_in=None)
SECOND = timedelta(seconds=1)


def arrival(number: int | str = 1, *, event: bool = False) -> Arrival:
    return Arrival(transaction_id=f"{ACCOUNT}.{number}", account_id=ACCOUNT, at=AT, event=event)


def request(reason: str | None = None, *, to: str | None = None) -> Request:
    return Request(by="kari", at=AT, reason=reason, to=to)


def entry(detail: str = "accepted by the relay") -> Entry:
    return Entry(at=AT, step=Step.DELIVER, result=Result.ACCEPTED, channel="email", detail=detail, message_id="<m@x>")


def send(delivery_id: str, number: int = 1, **changed: Any) -> Send:
    values: dict[str, Any] = {
        "id": f"s{number}-{delivery_id}",
        "delivery_id": delivery_id,
        "round": 0,
        "channel": "email",
        "recipient": "o***@nordmann.example",
        "recipient_key": "k1",
        "purpose": Purpose.FIRST,
        "key": "abc",
        "dated": AT,
        "message_id": "<abc@merchant.example>",
        "sha256": "0" * 64,
        "begun_at": AT,
    }
    return Send(**(values | changed))


def capture(delivery_id: str, number: int = 1, **changed: Any) -> Capture:
    values: dict[str, Any] = {
        "id": f"c{number}-{delivery_id}",
        "delivery_id": delivery_id,
        "transaction_id": delivery_id,
        "reference": f"capture-{delivery_id}",
        "amount": 50000,
        "begun_at": AT,
    }
    return Capture(**(values | changed))


async def claim_all(store: Store, *, lane: str = PROVIDER_LANE, suspects: bool = False) -> tuple[Claim, ...]:
    return await store.claim(ACCOUNT, lane, 1000, lease=60, suspects=suspects)


async def claimed(store: Store, number: int | str = 1) -> Claim:
    """Enter a transaction and claim it; nothing else may be due."""
    await store.receive(arrival(number))
    (claim,) = await claim_all(store)
    return claim


async def only(store: Store, number: int | str = 1) -> Delivery:
    """Return the delivery of this number as the record has it."""
    (delivery,) = await store.find(f"{ACCOUNT}.{number}")
    return delivery


def near(one: datetime | None, other: datetime, *, within: float = 5) -> bool:
    return one is not None and abs((one - other).total_seconds()) < within


def due_now(delivery: Delivery, clock: Clock) -> bool:
    return delivery.due_at is not None and delivery.due_at <= clock.now() + SECOND


SETTLED: dict[str, Any] = {
    "outcome": Settled.ACCEPTED,
    "answer": "250 ok",
    "settled_at": AT + 2 * SECOND,
    "proof": Proof.RELAY,
}
CLOSED: dict[str, Any] = {"outcome": Outcome.COMPLETED, "closed_at": AT}


@asynccontextmanager
async def plugged(store: SqlStore) -> AsyncIterator[None]:
    """Keep the writer busy, so that what is asked for meanwhile becomes one group."""
    begun, free = threading.Event(), threading.Event()

    def wait(_book: Book) -> None:
        begun.set()
        free.wait(30)

    held = store._writer.write(Write(apply=wait))
    while not begun.is_set():
        await asyncio.sleep(0)
    try:
        yield
    finally:
        free.set()
        await held
