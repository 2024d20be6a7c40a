"""Missed callbacks, new records and restored ones, with the service over real HTTP and SMTP."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from datetime import datetime
from pathlib import Path
from random import Random
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import pytest

from service.capture import capture_reference
from service.delivery import Outcome, Step
from service.dintero.reading import moment
from service.reconcile import RECENT, first_look, spans
from service.serving import listen
from service.simulator.mail import Behaviour, Phase
from service.simulator.sales import sale
from tests.processes import answers, running
from tests.shop import Shop, open_shop, outcomes
from tests.stage import environment

DAY = 86400.0
TIMEZONE = ZoneInfo("Europe/Oslo")  # the setting's default


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as opened:
        yield opened


def listed(shop: Shop) -> list[str]:
    """Return the queries for lists, in the order in which they came."""
    return [seen.query for seen in shop.running.provider.requests if seen.endpoint == "list_transactions"]


def first_looks(shop: Shop) -> list[str]:
    """Return the span that each query for a list was of, when all are of a first turn: those that it has, no others.

    The last 24 hours, the days before, and unless the quarter is younger than these, for purchases from its first day.
    """
    bounds = [dict(parse_qsl(query)) for query in listed(shop)]
    asked = [(moment(one["created_at.gte"]), moment(one.get("created_at.lte"))) for one in bounds]
    first, _ = asked[0]
    assert first is not None
    now = first + RECENT
    due = (*spans(now, None), *filter(None, (first_look(now, TIMEZONE),)))
    names: dict[tuple[datetime | None, datetime | None], str] = {
        (span.since, span.until): name for span, name in zip(due, ("day", "days", "quarter"), strict=False)
    }
    looks = [names[one] for one in asked]
    assert len(set(looks)) == len(due)
    return looks


# --- missed callbacks ------------------------------------------------------------------------------------------------


async def test_a_missed_callback_is_made_up_for(shop: Shop, database_url: str) -> None:
    async with shop.service(database_url) as service:
        told, missed = shop.sell(callback=True), shop.sell()
        theirs, held = shop.sell(channel="kravia"), shop.sell()
        shop.running.provider.hold(held)
        await service.settle()
        assert sorted(shop.mailed()) == sorted([told, missed])
        record = await service.record()
        assert outcomes(record) == {told: "completed", missed: "completed", theirs: "skipped", held: "open"}
        assert await service.details(missed, Step.RECEIVE) == ["reconcile"]
        assert await service.details(told, Step.RECEIVE) == ["callback"]
        await service.settle(after=601)
        assert outcomes(await service.record()) == outcomes(record)
        assert len(shop.mail.inbox) == 2


async def test_callbacks_and_looks_that_cross_deliver_once(shop: Shop, database_url: str) -> None:
    """The look finds it before the callback, beside it and after it."""
    async with shop.service(database_url) as service:
        missed = shop.sell()
        await service.app.chores.look()
        both = shop.sell(callback=True)
        shop.clock.advance(601)
        await asyncio.gather(service.app.chores.look(), shop.running.caller.idle())
        await service.settle(after=601)
        assert sorted(shop.mailed()) == sorted([missed, both])
        assert sorted(shop.captures()) == sorted([missed, both])


@pytest.mark.parametrize("count", [100, 101])
async def test_more_than_a_page_is_missed(shop: Shop, sqlite_url: str, count: int) -> None:
    async with shop.service(sqlite_url) as service:
        missed = [shop.sell(reference=f"order-{number}") for number in range(count)]
        await service.app.chores.look()
        assert set(await service.record()) == set(missed)
        looks = first_looks(shop)
        assert looks == [looks[0], *dict.fromkeys(looks)]  # two pages of the day, and one of each span before it
        for query in listed(shop):
            assert "payment_product=kravia" in query
            assert "limit=100" in query
            assert "created_at.gte=" in query
            assert "status" not in query


async def test_what_the_customer_has_not_finished_comes_when_it_is(shop: Shop, database_url: str) -> None:
    async with shop.service(database_url) as service:
        provider = shop.running.provider
        body = sale(callback_url="", random=Random(1))
        unfinished, declined = (provider.bill(body, start=start)["id"] for start in ("INITIATED", "DECLINED"))
        await service.settle()
        assert await service.record() == {}
        provider.release(unfinished)
        await service.settle(after=601)
        assert outcomes(await service.record()) == {unfinished: "completed"}
        assert declined not in await service.record()


@pytest.mark.parametrize("days", [0, 5, 29])
async def test_a_void_whose_callback_was_missed_is_found(shop: Shop, database_url: str, days: int) -> None:
    """As far back as the longer look reaches; what is older is out of reach."""
    async with shop.service(database_url) as service:
        transaction_id = shop.sell()
        await service.settle()
        assert (await service.record())[transaction_id].outcome is Outcome.COMPLETED
        shop.running.provider.void(transaction_id)
        await service.settle(after=days * DAY + 601)
        seen = (await service.record())[transaction_id]
        assert (seen.outcome, seen.voided_at is not None) == (Outcome.COMPLETED, True)
        assert len(shop.mail.inbox) == 1


async def test_polling_alone_is_a_front_door(shop: Shop, database_url: str) -> None:
    async with shop.service(database_url, reconcile_every="0.3") as service:
        working = [asyncio.create_task(part.run()) for part in (service.app.worker, service.app.chores)]
        sold = []
        async with asyncio.timeout(30):
            for count in (1, 2):
                sold.append(shop.sell())
                while outcomes(await service.record()) != dict.fromkeys(sold, "completed"):
                    await asyncio.sleep(0.05)
                assert shop.mailed() == sold[:count]
        service.app.worker.stop()
        service.app.chores.stop()
        await asyncio.gather(*working)
        assert shop.running.caller.attempts == []


async def test_without_an_interval_nobody_looks(shop: Shop, sqlite_url: str) -> None:
    async with shop.service(sqlite_url, reconcile_every="0") as service:
        shop.sell()
        await service.settle()
        assert await service.record() == {}


async def test_a_provider_in_trouble_is_asked_again_and_says_so(shop: Shop, sqlite_url: str) -> None:
    async with shop.service(sqlite_url) as service:
        transaction_id = shop.sell()
        tokens = shop.running.provider.keys
        right, tokens.account = tokens.account, type(tokens.account)(client_secret="another")
        await service.settle()
        assert await service.record() == {}
        tokens.account = right
        await service.settle(after=61)
        assert outcomes(await service.record()) == {transaction_id: "completed"}


# --- an empty record -------------------------------------------------------------------------------------------------


async def test_an_empty_record_mails_nobody_but_who_is_new(
    shop: Shop, empty_database_url: str, sqlite_url: str
) -> None:
    provider = shop.running.provider
    async with shop.service(sqlite_url) as service:
        delivered = [shop.sell(callback=True, reference=f"order-{number}") for number in range(3)]
        await service.settle()
        assert sorted(shop.mailed()) == sorted(delivered)
    shop.mail.inbox.clear()
    for transaction_id, days in zip(delivered, (0.1, 3, 20), strict=True):
        shop.backdate(transaction_id, days=days)
    theirs = shop.sell()
    provider.capture(theirs, {"amount": provider.transaction(theirs)["amount"], "capture_reference": "somebody"})
    old = shop.sell()
    shop.backdate(old, days=3)
    new = shop.sell()
    already = len(provider.captures)

    async with shop.service(empty_database_url) as service:
        await service.settle()
        assert shop.mailed() == [new]
        assert [seen.transaction_id for seen in provider.captures[already:]] == [new]
        record = await service.record()
        assert outcomes(record) == {
            **dict.fromkeys(delivered, "completed"),
            theirs: "failed",
            old: "failed",
            new: "completed",
        }
        assert {(record[one].reason or "").partition(":")[0] for one in (theirs, old)} == {"held"}
        assert all(record[one].progress == ("delivered", "captured") for one in delivered)
        for seconds in (601, DAY, DAY, 5 * DAY):
            await service.settle(after=seconds)
        assert shop.mailed() == [new]


async def test_a_callback_does_not_let_out_what_is_older_than_the_record(shop: Shop, empty_database_url: str) -> None:
    old = shop.sell(callback=True)
    shop.backdate(old, days=3)
    async with shop.service(empty_database_url) as service:
        await service.settle()
        assert outcomes(await service.record()) == {old: "failed"}
        assert shop.mail.inbox == []


async def test_with_the_capture_first_our_own_capture_says_nothing_of_a_delivery(
    shop: Shop, empty_database_url: str
) -> None:
    transaction_id = shop.sell()
    provider = shop.running.provider
    body = {"amount": provider.transaction(transaction_id)["amount"]}
    provider.capture(transaction_id, body | {"capture_reference": capture_reference(transaction_id)})
    async with shop.service(empty_database_url, capture_order="before_delivery") as service:
        await service.settle()
        assert outcomes(await service.record()) == {transaction_id: "failed"}
        assert shop.mail.inbox == []


# --- yesterday's backup ----------------------------------------------------------------------------------------------


def backup(database_url: str, to: Path) -> None:
    """Copy the record as the README says."""
    source = database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(source)) as record, closing(sqlite3.connect(to)) as copy:
        record.backup(copy)


async def test_yesterdays_backup_mails_nobody_twice(shop: Shop, sqlite_url: str, tmp_path: Path) -> None:
    """What it holds for delivered, for open, for refused for now, and what it has never heard of."""
    copy = tmp_path / "backup.db"
    async with shop.service(sqlite_url) as service:
        before = shop.sell(callback=True)
        await service.settle()
        shop.mail.script.on(Phase.RCPT, Behaviour(reply="450 4.2.0 come again later"), times=1)
        refused = shop.sell(callback=True)
        await service.settle()
        waiting = shop.sell(callback=True)
        await shop.running.caller.idle()
        assert outcomes(await service.record()) == {before: "completed", refused: "open", waiting: "open"}
        backup(sqlite_url, copy)
        told = shop.sell(callback=True)
        missed = shop.sell()
        await service.settle(after=601)
        assert set(outcomes(await service.record()).values()) == {"completed"}
    everybody = [before, refused, waiting, told, missed]
    assert sorted(shop.mailed()) == sorted(everybody)
    shop.clock.advance(DAY)
    new = shop.sell()

    async with shop.service(f"sqlite:///{copy}") as service:
        assert outcomes(await service.record()) == {before: "completed", refused: "open", waiting: "open"}
        await service.settle()
        await service.settle(after=601)
        assert outcomes(await service.record()) == dict.fromkeys([*everybody, new], "completed")
    assert sorted(shop.mailed()) == sorted([*everybody, new])
    assert sorted(shop.captures()) == sorted([*everybody, new])


# --- several processes -----------------------------------------------------------------------------------------------


async def test_of_two_processes_one_reconciles(shop: Shop, database_url: str, tmp_path: Path) -> None:
    missed = [shop.sell(reference=f"order-{number}") for number in range(3)]
    settings = environment(shop.running, shop.mail, public_url=shop.url, database_url=database_url)
    async with AsyncExitStack() as stack:
        ports = [stack.enter_context(listen()) for _ in range(2)]
        admin = [sock.getsockname()[1] for sock in ports]
        for sock in ports:
            sock.close()
        services = [
            await stack.enter_async_context(
                running("worker", settings=settings | {"DELIVERY_ADMIN_PORT": str(port)}, cwd=tmp_path)
            )
            for port in admin
        ]
        for port, started in zip(admin, services, strict=True):
            await answers(f"http://127.0.0.1:{port}/readyz", started)
        async with asyncio.timeout(30):
            while len(shop.captures()) < len(missed):
                await asyncio.sleep(0.05)
        for started in services:
            assert await started.stop() == 0
    assert sorted(shop.mailed()) == sorted(missed)
    looks = first_looks(shop)
    assert looks == list(dict.fromkeys(looks))  # each once, by one of them
    said = [started.output.decode() for started in services]
    assert sorted(text.count('"service.reconciled"') for text in said) == [0, len(looks)]
