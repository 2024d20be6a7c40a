"""An operator's commands run inside the test, on the record of the fixture `record_url`, and what that may hold."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from click.testing import CliRunner, Result

from service import delivery as d
from service.cli import cli
from service.store import open_store
from tests.fakes import MovedClock

ACCOUNT = "T12345678"
AT = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)
T = TypeVar("T")


def within(url: str, work: Callable[[d.Store], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_store(url, clock=MovedClock()) as store:
            return await work(store)

    return asyncio.run(run())


def enter(url: str, *ids: str, later: float = 0, **changes: Any) -> None:
    """Put deliveries into the record, a second apart, as a worker leaves them that has looked at each once."""

    async def work(store: d.Store) -> None:
        arrivals = [
            d.Arrival(transaction_id=name, account_id=ACCOUNT, at=AT + timedelta(seconds=second + later))
            for second, name in enumerate(ids)
        ]
        await asyncio.gather(*map(store.receive, arrivals))
        saves = []
        for claim in await store.claim(ACCOUNT, d.PROVIDER_LANE, len(ids), lease=60, suspects=False):
            entry = d.Entry(at=AT, step=d.Step.FETCH, result=d.Result.ACCEPTED, detail="read")
            found = replace(claim.delivery, amount=50000, currency="NOK", **changes)
            due_in = 60.0 if found.outcome is d.Outcome.OPEN else None
            saves.append(store.save(claim, found, d.Schedule(due_in=due_in), [entry]))
        await asyncio.gather(*saves)

    within(url, work)


def enter_sent(url: str, name: str, **of_the_send: Any) -> None:
    """Put a delivery into the record that was sent and captured."""

    async def work(store: d.Store) -> None:
        await store.receive(d.Arrival(transaction_id=name, account_id=ACCOUNT, at=AT))
        (claim,) = await store.claim(ACCOUNT, d.PROVIDER_LANE, 1, lease=60, suspects=False)
        send = d.Send(
            id="s1",
            delivery_id=claim.delivery.id,
            round=0,
            channel="email",
            recipient="o***@nordmann.example",
            recipient_key="k",
            purpose=d.Purpose.FIRST,
            key="key",
            dated=AT,
            message_id="<m1@butikken.example>",
            sha256="00",
            begun_at=AT,
            **of_the_send,
        )
        await store.begin_send(claim, send)
        accepted = replace(
            send, outcome=d.Settled.ACCEPTED, answer="250 queued as A1", proof=d.Proof.RELAY, settled_at=AT
        )
        sent = d.Entry(
            at=AT, step=d.Step.DELIVER, result=d.Result.ACCEPTED, channel="email", message_id=send.message_id
        )
        await store.settle_send(accepted, [sent])
        capture = d.Capture(
            id="c1",
            delivery_id=claim.delivery.id,
            transaction_id=name,
            reference="ref-1",
            amount=50000,
            begun_at=AT,
        )
        await store.begin_capture(claim, capture)
        await store.settle_capture(replace(capture, outcome=d.Settled.ACCEPTED, settled_at=AT), [], began_at=AT)
        done = replace(
            claim.delivery,
            outcome=d.Outcome.COMPLETED,
            channel=send.channel,
            recipient=send.recipient,
            amount=50000,
            currency="NOK",
            invoice_number="A1B2C-000001",
            merchant_reference="order-123",
            decided_by=d.DecidedBy.TRANSACTION,
            closed_at=AT,
        )
        await store.save(claim, done, d.Schedule(due_in=None))

    within(url, work)


def command(*arguments: str) -> Result:
    return run("deliveries", *arguments)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), prog_name="merchant-delivery")


def shown(reference: str) -> Any:
    result = command("show", reference, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def outcomes() -> dict[str, str]:
    return {one["transaction_id"]: one["outcome"] for one in json.loads(command("list", "--json").stdout)}
