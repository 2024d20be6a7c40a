"""`receipts ingest`, as a mail server runs it: exit status 0, 1 and 75, and never more than the record should hold."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from service.clock import SystemClock
from service.delivery import Delivery, Outcome, Proof, Report
from service.store import open_store
from tests.commands import Ran, run
from tests.store_values import ACCOUNT, CLOSED, NEVER, SETTLED, claimed, only, send
from tests.test_dsn import BOUNCE, KEY, OURS, VACATION


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERY_ACCOUNT_ID", ACCOUNT)


def completed(url: str) -> None:
    async def work() -> None:
        async with open_store(url, clock=SystemClock(), migrate=False) as store:
            claim = await claimed(store)
            begun = send(claim.delivery.id, key=KEY, message_id=OURS)
            await store.begin_send(claim, begun)
            await store.settle_send(replace(begun, **SETTLED, proof=Proof.RELAY), [])
            await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)

    asyncio.run(work())


def recorded(url: str) -> tuple[Delivery, tuple[Report, ...]]:
    async def work() -> tuple[Delivery, tuple[Report, ...]]:
        async with open_store(url, clock=SystemClock(), migrate=False) as store:
            return await only(store), await store.unmatched_reports(ACCOUNT)

    return asyncio.run(work())
