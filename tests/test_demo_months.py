"""The demo's months with the real service: purchases become invoices, sent once each, as they were forecast."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx2 as httpx
import pytest

from service.app import demo_service
from service.clock import MovableClock
from service.serving import listen, origin, serving
from service.simulator.api import open_provider
from service.simulator.demo import settings_for
from service.simulator.erp import ErpServer
from service.simulator.faults import Fault, Faults
from service.simulator.mail import MailServer, open_mail_server
from service.simulator.months import CUSTOMERS, Groups
from service.simulator.pages import site
from service.simulator.sms import SmsServer
from service.simulator.stage import Stage

LIND = CUSTOMERS["lind"].organization_number


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """The demo as it is run, in the middle of a month: near to its end, a purchase may be billed with either."""
    clock, random, sock = MovableClock(), Random(1), listen()
    clock.set((clock.now().replace(day=1) + timedelta(days=32)).replace(day=10))
    faults, url = Faults(random), origin(sock)
    async with (
        open_mail_server(MailServer(clock=clock, random=random, faults=faults)) as mail,
        open_provider(clock=clock, faults=faults) as running,
        demo_service(settings_for(str(tmp_path), url, running, mail), clock) as service,
    ):
        stage = Stage(
            url=url,
            running=running,
            mail=mail,
            sms=SmsServer(clock=clock),
            erp=ErpServer(clock=clock, secret="a-secret", faults=faults),
            service=service,
            clock=clock,
            random=random,
            told=lambda _number, _what: None,
        )
        mail.arrived = stage.arrived
        async with serving(site(stage), sock):
            work = asyncio.create_task(service.run())
            yield stage
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work


async def until(true: Callable[[Groups], bool], stage: Stage) -> Groups:
    """Look until the page shows it."""
    async with asyncio.timeout(40):
        while not true(found := await stage.groups()):
            await asyncio.sleep(0.05)
    return found


async def known(stage: Stage) -> list[dict[str, Any]]:
    return list(json.loads(await stage.service.groups()))


async def buy(stage: Stage, *names: str) -> Groups:
    """Have the customers buy, and wait until the service is through with all that was bought."""
    stage.buy(*names)
    bought = set(stage.running.provider.transactions)
    async with asyncio.timeout(40):
        while {one for group in await known(stage) for one in group["purchases"]} != bought:
            await asyncio.sleep(0.05)
        while not all([waits_or_is_closed(await stage.record(name)) for name in bought]):
            await asyncio.sleep(0.05)
    return await stage.groups()


def waits_or_is_closed(record: dict[str, Any] | None) -> bool:
    """Tell whether a purchase was looked at and put aside: what is in hand while the clock moves has read too early."""
    return record is not None and (record["reason"] is not None or record["outcome"] != "open")


def delivered(count: int) -> Callable[[Groups], bool]:
    return lambda groups: [bill.outcome for bill in groups.bills] == ["completed"] * count


async def closed(stage: Stage) -> list[dict[str, Any]]:
    """Wait until every purchase is closed; return their records."""
    async with asyncio.timeout(40):
        while True:
            found = [await stage.record(name) for name in stage.running.provider.transactions]
            records = [record for record in found if record is not None]
            if len(records) == len(found) and all(record["outcome"] != "open" for record in records):
                return records
            await asyncio.sleep(0.05)


async def page_of(stage: Stage) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        return str((await http.get(f"{stage.url}/demo/groups")).text)


async def test_two_months_of_three_customers_become_six_invoices_as_forecast(stage: Stage) -> None:
    provider, forecast = stage.running.provider, Counter[str]()
    for month in (1, 2):
        await buy(stage)
        before = await buy(stage)
        assert len(before.waiting) == 3
        assert [row.told.startswith(f"forecast {row.amount}, issued ") for row in before.waiting] == [True] * 3
        assert all(str(row.issued) in row.told for row in before.waiting)
        assert (await page_of(stage)).count("The service: forecast ") == 3 * month
        for group in await known(stage):
            forecast[group["currency"]] += 0 if group["billed"] else group["amount"]
        stage.move_on()
        after = await until(delivered(3 * month), stage)
        assert after.waiting == ()
        records = await closed(stage)
    billed = Counter[str]()
    for bill in provider.billing.bills:
        billed[bill.currency] += bill.amount
    assert forecast == billed
    assert [len(bill.mails) for bill in after.bills] == [1] * 6
    told = [letter.text or "" for letter in stage.letters if not letter.attachments]
    assert len(stage.letters) - len(told) == 6
    assert len(told) == len(provider.transactions) == 12  # a notice of each purchase, which names it and what it was
    for purchase in provider.transactions.values():
        reference = f": {purchase['merchant_reference']}"
        (text,) = [text for text in told if any(line.endswith(reference) for line in text.splitlines())]
        assert purchase["items"][0]["description"] in text
    assert [record["outcome"] for record in records] == ["completed"] * 12
    assert all("captured" in record["progress"] for record in records)
    assert Counter(seen.transaction_id for seen in provider.captures_asked) == dict.fromkeys(provider.transactions, 1)
    assert {bill.differences for bill in (await stage.groups()).bills} == {()}
    page = await page_of(stage)
    assert page.count("purchases and dates as expected.") == 6
    assert "otherwise" not in page


async def one_month_of_two(stage: Stage, fault: str) -> None:
    stage.faults.commit(Fault(name=fault, count=1, where=LIND))
    await buy(stage)
    await buy(stage)
    stage.move_on()


async def test_an_invoice_of_its_own_is_shown_as_a_difference(stage: Stage) -> None:
    await one_month_of_two(stage, "bill-own-number")
    await until(delivered(4), stage)
    await closed(stage)
    bills = (await stage.groups()).bills
    differ = [bill for bill in bills if bill.differences]
    assert {bill.customer for bill in differ} == {CUSTOMERS["lind"].business_name}
    assert len(differ) == 2
    (words,) = {bill.differences for bill in differ}
    assert "others of its group are on" in words[0]
    page = await page_of(stage)
    assert page.count("billed otherwise than expected.") == page.count("as expected.") == 2


async def test_a_purchase_that_was_left_out_is_shown_as_a_difference(stage: Stage) -> None:
    await one_month_of_two(stage, "bill-left-out")
    await until(delivered(3), stage)
    (bill,) = [bill for bill in (await stage.groups()).bills if bill.customer.startswith("Lind")]
    assert "not yet seen billed" in bill.told
    stage.clock.advance(2 * 3600)

    def told(groups: Groups) -> bool:
        return any("missing: others of its group" in words for row in groups.bills for words in row.differences)

    groups = await until(told, stage)
    assert [row.customer for row in groups.bills if row.differences] == [bill.customer]
    assert any("missing" in words for row in groups.waiting for words in row.differences)
    assert "missing: others of its group are on invoice" in await page_of(stage)
