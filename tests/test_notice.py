"""The notice at each grouped purchase: told once at most, and never in the way of anything else."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from service.delivery import (
    NOTICE_ROUND,
    PROVIDER_LANE,
    RECONCILE,
    AccountFailure,
    Arrival,
    CaptureOrder,
    Condition,
    Members,
    Outcome,
    Party,
    PermanentFailure,
    Proof,
    Purpose,
    Result,
    Send,
    Settled,
    Standing,
    Step,
    TransientFailure,
    UnconfirmedFailure,
)
from service.evidence import rests_on
from service.purchases import upcoming
from tests.fakes import ACCOUNT
from tests.test_grouped import DAY, HOUR, INVOICE, KRAVIA, NUMBER, a_purchase, at, bill, buy, found
from tests.workbench import RULES, Bench, open_bench

P1 = f"{ACCOUNT}.p1"
BOUGHT = datetime(2040, 1, 17, 12, tzinfo=UTC)  # February 1, 2040, is a Wednesday and no holiday
TOLD = "p1: on the invoice of 2040-02-01, for 2040-01-01"


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """One service without its edges, on either database."""
    async with open_bench(database_url) as opened:
        yield opened


@pytest.fixture(params=CaptureOrder)
async def shop(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    bench.rules = replace(RULES, group_notice=True, order=request.param)
    await at(bench, BOUGHT)
    return bench


def said(bench: Bench) -> list[str]:
    """Return what was sent, without what comes before the words."""
    return [sent.content.decode().partition("+00:00 ")[2] for sent in bench.channel.sent]


async def notices(bench: Bench, name: str = "p1") -> list[Send]:
    return [send for send in await bench.store.sends(f"{ACCOUNT}.{name}") if send.round == NOTICE_ROUND]


async def waits_for_its_invoice(bench: Bench, name: str = "p1") -> None:
    """See that a purchase stands as if there were no notices."""
    purchase = await found(bench, name)
    assert (purchase.outcome, purchase.progress, purchase.lane) == (Outcome.OPEN, (), PROVIDER_LANE)
    assert (purchase.reason or "").startswith("waits for the invoice of 2040-01")
    assert purchase.due_at is not None
    assert purchase.due_at.date() in (date(2040, 1, 31), date(2040, 2, 1))  # midnight in Oslo


async def test_the_customer_is_told_once_on_which_invoice_a_purchase_will_be(shop: Bench) -> None:
    await buy(shop, "p1")
    assert said(shop) == [TOLD]
    assert shop.channel.sent[0].recipient.address == "faktura@nordmann.no"
    (notice,) = await notices(shop)
    assert (notice.purpose, notice.outcome, notice.document_sha256) == (Purpose.NOTICE, Settled.ACCEPTED, None)
    await waits_for_its_invoice(shop)
    for _ in range(5):
        await shop.arrive(P1, event=True)
        await shop.work_all(after=2 * HOUR)
    assert len(await notices(shop)) == len(shop.channel.sent) == 1
    history = await shop.store.history(P1)
    assert [entry.detail for entry in history if entry.step is Step.DELIVER] == ["notice: 250 2.0.0 queued as 1"]


async def test_the_invoice_comes_as_if_nothing_had_been_sent(shop: Bench) -> None:
    await buy(shop, "p1", "p2")
    await at(shop, datetime(2040, 2, 1, 12, tzinfo=UTC))
    bill(shop, "p1", "p2")
    await shop.work_all(after=12 * HOUR)
    for _ in range(12):
        await shop.work_all(after=300)
    assert len(shop.channel.sent) == 3
    assert said(shop)[2].startswith(f"an invoice for {NUMBER}")  # and no copy
    assert len(shop.payments.captures) == 2
    for name in ("p1", "p2", f"invoice.{NUMBER}"):
        assert (await found(shop, name)).outcome is Outcome.COMPLETED
    assert [send.round for send in await shop.store.sends(INVOICE)] == [0]
    (notice,) = await notices(shop)
    assert notice.message_id not in rests_on(await shop.store.dossier(P1))


async def test_nobody_is_told_by_default(bench: Bench) -> None:
    await at(bench, BOUGHT)
    await buy(bench, "p1")
    await waits_for_its_invoice(bench)
    assert not bench.channel.sent


async def test_what_is_not_ours_or_not_coming_or_billed_is_not_told(shop: Bench) -> None:
    await buy(shop, "p1", findings=KRAVIA)
    await buy(shop, "p2", standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
    url = "https://checkout.dintero.com/v1/files/x"
    shop.channel.plan = [PermanentFailure("the invoice itself is not what is looked at")]
    await buy(shop, "p3", invoice_number=NUMBER, invoice_url=url)
    await shop.work_all(after=DAY)
    assert not shop.channel.sent
    assert [await notices(shop, name) for name in ("p1", "p2", "p3")] == [[], [], []]


@pytest.mark.parametrize("earlier", [0, 1])
@pytest.mark.parametrize("trouble", [UnconfirmedFailure("the connection broke"), RuntimeError("it died")])
async def test_one_that_may_have_arrived_is_never_repeated(shop: Bench, trouble: Exception, earlier: int) -> None:
    shop.channel.plan = [*(TransientFailure("451 later") for _ in range(earlier)), trouble]
    await buy(shop, "p1")
    for _ in range(10):
        await shop.arrive(P1)
        await shop.work_all(after=HOUR)
    *_, notice = tried = await notices(shop)
    assert (notice.outcome, len(tried)) == (Settled.UNCONFIRMED, earlier + 1)
    assert not shop.channel.sent
    await waits_for_its_invoice(shop)


async def test_refused_for_now_it_is_tried_three_times_more_along_the_schedule(shop: Bench) -> None:
    shop.channel.plan = [TransientFailure("451 later") for _ in range(10)]
    await buy(shop, "p1")
    for before, after in ((50, 20), (270, 40), (270, 40)):
        tried = len(await notices(shop))
        await shop.arrive(P1)
        await shop.work_all(after=before)
        assert len(await notices(shop)) == tried  # nothing that wakes it brings the next try forward
        await shop.work_all(after=after)
        assert len(await notices(shop)) == tried + 1
    await waits_for_its_invoice(shop)
    for _ in range(8):
        await shop.arrive(P1)
        await shop.work_all(after=HOUR)
    assert [send.outcome for send in await notices(shop)] == [Settled.REFUSED] * 4
    assert len({send.message_id for send in await notices(shop)}) == 1
    await waits_for_its_invoice(shop)


async def test_a_later_try_that_is_accepted_is_the_last(shop: Bench) -> None:
    shop.channel.plan = [TransientFailure("451 later", retry_after=7200)]
    await buy(shop, "p1")
    await shop.work_all(after=2 * HOUR - 100)
    assert not shop.channel.sent
    await shop.work_all(after=200)
    assert said(shop) == [TOLD]
    await shop.work_all(after=HOUR)
    assert [send.outcome for send in await notices(shop)] == [Settled.REFUSED, Settled.ACCEPTED]
    await waits_for_its_invoice(shop)


@pytest.mark.parametrize("earlier", [0, 1])
async def test_refused_for_good_it_is_left(shop: Bench, earlier: int) -> None:
    shop.channel.plan = [*(TransientFailure("451 later") for _ in range(earlier)), PermanentFailure("550 no")]
    await buy(shop, "p1")
    await shop.work_all(after=70)
    for _ in range(5):
        await shop.arrive(P1)
        await shop.work_all(after=HOUR)
    assert [send.outcome for send in await notices(shop)] == [Settled.REFUSED] * (earlier + 1)
    assert not shop.channel.sent
    await waits_for_its_invoice(shop)


async def test_without_an_address_the_history_says_so_once(shop: Bench) -> None:
    await buy(shop, "p1", billing=Party(business_name="Nordmann AS", country="NO"))
    await shop.arrive(P1)
    await shop.work_all(after=HOUR)
    history = await shop.store.history(P1)
    told = [(entry.result, entry.detail) for entry in history if entry.step is Step.DELIVER]
    assert told == [(Result.SKIPPED, "no notice: no usable e-mail address")]
    await waits_for_its_invoice(shop)


@pytest.mark.parametrize(("age", "told"), [(timedelta(hours=23), 1), (timedelta(hours=25), 0)])
async def test_what_nobody_notified_us_of_is_told_within_a_day(shop: Bench, age: timedelta, told: int) -> None:
    shop.payments.add(a_purchase("p1", shop.clock.now() - age))
    now = shop.clock.now()
    await shop.store.receive(Arrival(transaction_id=P1, account_id=ACCOUNT, at=now, source=RECONCILE))
    await shop.work_all()
    assert len(shop.channel.sent) == told
    await waits_for_its_invoice(shop)


async def test_a_purchase_of_before_it_was_switched_on_is_not_told(shop: Bench) -> None:
    rules, shop.rules = shop.rules, replace(shop.rules, group_notice=False)
    await buy(shop, "p1")
    shop.rules = rules
    await shop.arrive(P1)
    await shop.work_all(after=DAY + 60)
    assert not shop.channel.sent


async def test_a_relay_at_fault_is_paused_and_the_purchase_is_not(shop: Bench) -> None:
    shop.channel.plan = [AccountFailure("535 password")]
    shop.channel.checks_plan = [AccountFailure("535 password") for _ in range(100)]
    await buy(shop, "p1")
    await buy(shop, "p2")
    assert [pause.lane for pause in await shop.store.pauses(ACCOUNT)] == ["email"]
    assert (await found(shop, "p1")).lane == (await found(shop, "p2")).lane == PROVIDER_LANE
    for _ in range(4):
        await shop.work_all(after=HOUR)
    assert (len(await notices(shop)), len(await notices(shop, "p2"))) == (1, 0)  # not tried while it is paused
    shop.channel.checks_plan = []
    for _ in range(8):
        await shop.work_all(after=HOUR)
    assert sorted(said(shop)) == [TOLD, TOLD.replace("p1", "p2")]
    await waits_for_its_invoice(shop)


async def test_a_purchase_is_watched_while_the_relay_is_paused_and_told_no_more_after_a_day(shop: Bench) -> None:
    await shop.store.pause(ACCOUNT, "email", "by hand", by="kari", probe_in=None)
    await buy(shop, "p1")
    await shop.work_all(after=DAY + HOUR)
    await waits_for_its_invoice(shop)
    await shop.store.resume(ACCOUNT, "email")
    await shop.work_all(after=DAY)
    assert not shop.channel.sent
    await shop.store.pause(ACCOUNT, "email", "by hand", by="kari", probe_in=None)
    await at(shop, datetime(2040, 2, 1, 12, tzinfo=UTC))
    bill(shop, "p1")
    await shop.work_all(after=12 * HOUR)
    assert await shop.store.find(NUMBER)


async def test_a_void_after_it_is_nothing_that_a_person_must_see(shop: Bench) -> None:
    await buy(shop, "p1")
    shop.payments.change(P1, standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
    await shop.arrive(P1, event=True)
    await shop.work_all()
    purchase = await found(shop, "p1")
    assert (purchase.outcome, purchase.reason) == (Outcome.CANCELLED, "voided at Dintero")
    assert await shop.store.concerns(ACCOUNT) == ()


async def test_one_in_doubt_is_no_doubt_about_the_invoice(shop: Bench) -> None:
    shop.channel.plan = [UnconfirmedFailure("the connection broke")]
    await buy(shop, "p1")
    await at(shop, datetime(2040, 2, 1, 12, tzinfo=UTC))
    for _ in range(30):
        await shop.work_all(after=DAY / 2)
    assert (await found(shop, "p1")).outcome is Outcome.FAILED  # never billed
    (concern,) = await shop.store.concerns(ACCOUNT)
    assert concern.condition is Condition.FAILED


async def test_told_late_that_it_arrived_it_still_delivers_nothing(shop: Bench) -> None:
    shop.channel.plan = [UnconfirmedFailure("the connection broke")]
    await buy(shop, "p1")
    (notice,) = await notices(shop)
    late = replace(notice, outcome=Settled.ACCEPTED, answer="250", proof=Proof.RELAY, settled_at=shop.clock.now())
    await shop.store.settle_send(late, ())
    assert [send.outcome for send in await notices(shop)] == [Settled.ACCEPTED]
    await shop.work_all(after=HOUR)
    await waits_for_its_invoice(shop)


@pytest.mark.parametrize(
    ("bought", "words"),
    [
        (datetime(2040, 12, 10, 12, tzinfo=UTC), "invoice of None, for 2040-12-01"),  # January 1 is a holiday
        (datetime(2040, 1, 31, 22, tzinfo=UTC), "invoice of None, for None"),  # in either period
    ],
)
async def test_nothing_is_promised_that_is_not_sure(bench: Bench, bought: datetime, words: str) -> None:
    bench.rules = replace(RULES, group_notice=True)
    await at(bench, bought)
    await buy(bench, "p1")
    assert [text.partition("on the ")[2] for text in said(bench)] == [words]


async def test_no_date_is_promised_where_the_holidays_are_not_known(bench: Bench) -> None:
    await at(bench, BOUGHT)
    await buy(bench, "p1", billing=Party(business_name="Nordmann AS", country="XX", email="a@nordmann.example"))
    (member,) = await bench.store.members(Members())
    assert upcoming(member.purchase).issue is None
    assert upcoming(member.purchase, "NO").issue == date(2040, 2, 1)
