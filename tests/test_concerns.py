"""What a person must know: derived from the record on both databases, told once by each way, and put into words."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, insert, text, update

from service.concerns import (
    ABOUT,
    URGENT,
    Heading,
    digest,
    findings,
    in_order,
    outage_notice,
    silence,
    urgent_notice,
    working_hours,
)
from service.delivery import NOT_BILLED, Arrival, Calls, Case, Concern, Condition, News
from service.metrics import Metrics
from service.store import SqlStore
from service.store.tables import deliveries, jobs, purchases, sends
from tests.fakes import ACCOUNT, MovedClock
from tests.store_values import arrival, send

OSLO = ZoneInfo("Europe/Oslo")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FRIDAY = datetime(2026, 11, 20, 6, 30, tzinfo=UTC)  # 7:30 in Oslo
EVERYTHING = [Concern(condition=condition, count=0, cases=()) for condition in URGENT]


def enter(store: SqlStore, name: str, **columns: Any) -> None:
    """Put a delivery into the record as it would be after a while."""
    now = datetime.now(UTC)
    row = {
        "id": f"{ACCOUNT}.{name}",
        "account_id": ACCOUNT,
        "transaction_id": f"{ACCOUNT}.{name}",
        "received_at": now - 2 * HOUR,
        "kind": "invoice",
        "outcome": "open",
        "lane": "email",
        "invoice_number": f"A-{name}",
    }
    with store._engines.writer.connect() as connection:
        connection.execute(insert(deliveries), row | columns)
        connection.commit()


def a_purchase(name: str, remark: str) -> dict[str, Any]:
    """Return a row of `purchases` that only its remark is of interest of."""
    words = "business_name organization_number country customer_reference interval_from days_from channel decided_by"
    return dict.fromkeys(words.split(), "-") | {
        "transaction_id": f"{ACCOUNT}.{name}",
        "account_id": ACCOUNT,
        "group": f"of {name}",
        "interval": "monthly",
        "period_start": FRIDAY.date().replace(day=1),
        "currency": "NOK",
        "either_period": False,
        "days_until_due": 14,
        "purchased_at": FRIDAY,
        "amount": 50000,
        "remark": remark,
    }


def change(store: SqlStore, name: str, **columns: Any) -> None:
    with store._engines.writer.connect() as connection:
        connection.execute(update(deliveries).where(deliveries.c.id == f"{ACCOUNT}.{name}").values(**columns))
        connection.commit()


def sent(store: SqlStore, name: str, outcome: str, round_: int = 0, *, ordinal: int = 1) -> None:
    with store._engines.writer.connect() as connection:
        value = send(f"{ACCOUNT}.{name}", ordinal + round_)
        row = {column.name: getattr(value, column.name, None) for column in sends.columns}
        connection.execute(insert(sends), row | {"outcome": outcome, "round": round_, "ordinal": ordinal})
        connection.commit()


def told(concerns: tuple[Concern, ...]) -> dict[str, list[str]]:
    return {
        one.condition.value: sorted(case.subject.removeprefix(f"{ACCOUNT}.") for case in one.cases) for one in concerns
    }


async def test_a_record_without_trouble_has_no_concern(store: SqlStore) -> None:
    now = datetime.now(UTC)
    enter(store, "waits", due_at=now + HOUR)
    enter(store, "due", due_at=now - timedelta(minutes=4))
    enter(store, "fresh", due_at=now, delivered_at=now - HOUR / 2)
    enter(store, "taken", due_at=now - HOUR, leased_until=now + HOUR)
    enter(store, "done", outcome="completed", delivered_at=now - DAY, captured_known_at=now - DAY, closed_at=now)
    enter(store, "skipped", outcome="skipped", reason="invoice channel is kravia", closed_at=now)
    enter(store, "voided", outcome="cancelled", reason="voided at Dintero", voided_at=now, closed_at=now)
    enter(store, "stopped", outcome="cancelled", reason="stopped by kari", delivered_at=now, closed_at=now)
    enter(store, "long ago", outcome="completed", delivered_at=now - 9 * DAY, voided_at=now - 4 * DAY)
    enter(store, "of another", account_id="P12345678", outcome="failed", reason="no", closed_at=now)
    assert await store.concerns(ACCOUNT) == ()


async def test_every_condition_is_told_by_the_record(store: SqlStore) -> None:
    now = datetime.now(UTC)
    failed = {"outcome": "failed", "closed_at": now, "reason": "it would not"}
    long = {"due_at": now + HOUR, "attempt": 1}
    enter(store, "failed", **failed)
    enter(store, "held", **failed | {"reason": "held: older than this record"})
    enter(store, "uncaptured", delivered_at=now - 1.1 * HOUR, **long)
    enter(store, "refused capture", delivered_at=now, **failed)
    enter(store, "undelivered", captured_known_at=now - 1.1 * HOUR, **long)
    enter(store, "captured in vain", captured_known_at=now, **failed)
    enter(store, "perhaps", attempt=1, **failed)
    sent(store, "perhaps", "unconfirmed")
    enter(store, "again soon", **long)
    sent(store, "again soon", "unconfirmed")
    enter(store, "came back", captured_known_at=now, delivered_at=now, **failed | {"attempt": 1})
    sent(store, "came back", "bounced")
    enter(store, "goes by another", captured_known_at=now - 2 * HOUR, delivered_at=now - 2 * HOUR, **long)
    sent(store, "goes by another", "bounced")
    enter(store, "overdue", due_at=now - 6 * timedelta(minutes=1), leased_until=now - timedelta(minutes=1))
    enter(store, "void", outcome="completed", delivered_at=now - DAY, captured_known_at=now - DAY, voided_at=now)
    after = "voided at Dintero after the customer had the invoice"
    enter(store, "void in between", outcome="cancelled", reason=after, closed_at=now)
    nobody = "nobody delivers this invoice: set invoice_channel"
    enter(store, "nobody", outcome="skipped", reason=nobody, closed_at=now)
    enter(store, "nobody, once", outcome="skipped", reason=nobody, closed_at=now, received_at=now - 4 * DAY)
    for name in ("late", "other"):
        enter(store, name, kind="purchase", due_at=now + HOUR)
    enter(store, "settled", kind="purchase", outcome="completed", closed_at=now - 4 * DAY)
    await store.pause(ACCOUNT, "sms", "535 wrong password", by=None, probe_in=60)
    with store._engines.writer.connect() as connection:
        for name, remark in (("late", f"{NOT_BILLED}, and"), ("other", "missing: others"), ("settled", "missing")):
            connection.execute(insert(purchases), a_purchase(name, remark))
        connection.execute(insert(jobs), {"name": f"{ACCOUNT}:subscription", "last_run_at": now, "note": "gone"})
        connection.commit()
    concerns = await store.concerns(ACCOUNT)
    assert told(concerns) == {
        "bounced": ["came back", "goes by another"],
        "captured_not_delivered": ["captured in vain", "undelivered"],
        "delivered_not_captured": ["refused capture", "uncaptured"],
        "failed": ["failed"],
        "group_differs": ["of other"],
        "group_not_billed": ["of late"],
        "held": ["held"],
        "in_doubt": ["again soon"],
        "nobody_delivers": ["nobody"],
        "overdue": ["overdue"],
        "paused": ["sms"],
        "subscription_gone": [""],
        "unconfirmed": ["perhaps"],
        "voided_after_delivery": ["void", "void in between"],
    }
    assert {condition.value for condition in Condition} - set(told(concerns)) == {"silence"}
    failure = next(one for one in concerns if one.condition is Condition.FAILED).cases[0]
    assert (failure.invoice_number, failure.reason, failure.since) == ("A-failed", "it would not", now)


async def test_doubt_ends_with_an_answer_a_new_round_or_a_persons_word(store: SqlStore) -> None:
    failed = {"outcome": "failed", "closed_at": datetime.now(UTC), "attempt": 2}
    for name in ("answered", "resent", "stated"):
        enter(store, name, **failed)
        sent(store, name, "unconfirmed")
    sent(store, "answered", "accepted", round_=1)
    assert told(await store.concerns(ACCOUNT)) == {"unconfirmed": ["answered", "resent", "stated"]}
    change(store, "answered", round=1)
    change(store, "resent", round=1)
    change(store, "stated", stated_round=0)
    assert told(await store.concerns(ACCOUNT)) == {"failed": ["answered", "resent", "stated"]}


async def test_a_bounce_ends_with_another_message_a_new_round_or_a_persons_word(store: SqlStore) -> None:
    failed = {"outcome": "failed", "closed_at": datetime.now(UTC), "attempt": 2}
    for name in ("by another", "resent", "stated"):
        enter(store, name, **failed)
        sent(store, name, "bounced")
    assert told(await store.concerns(ACCOUNT)) == {"bounced": ["by another", "resent", "stated"]}
    sent(store, "by another", "accepted", ordinal=2)
    change(store, "resent", round=1)
    change(store, "stated", stated_round=0)
    assert told(await store.concerns(ACCOUNT)) == {"failed": ["by another", "resent", "stated"]}


async def test_what_a_pause_holds_up_is_not_overdue(store: SqlStore) -> None:
    now = datetime.now(UTC)
    enter(store, "one", due_at=now - HOUR)
    enter(store, "other", due_at=now - HOUR, lane="sms")
    await store.pause(ACCOUNT, "email", "a new relay", by="kari", probe_in=None)
    assert told(await store.concerns(ACCOUNT)) == {"overdue": ["other"], "paused": ["email"]}
    await store.pause(ACCOUNT, "provider", "403", by=None, probe_in=60)
    assert told(await store.concerns(ACCOUNT)) == {"paused": ["email", "provider"]}


async def test_many_are_counted_and_the_newest_named(store: SqlStore) -> None:
    now = datetime.now(UTC)
    for number in range(25):
        enter(store, f"{number:02}", outcome="failed", closed_at=now - number * HOUR)
    (concern,) = await store.concerns(ACCOUNT)
    assert concern.count == 25
    assert [case.subject for case in concern.cases] == [f"{ACCOUNT}.{number:02}" for number in range(20)]
    (news,) = await store.news(ACCOUNT, "mail", EVERYTHING)
    assert (news.concern.count, len(news.concern.cases)) == (25, 20)
    await store.told(ACCOUNT, "mail", news.latest)
    assert await store.news(ACCOUNT, "mail", EVERYTHING) == ()  # those that were only counted are told as well


async def test_the_last_call_is_known_and_what_came_without_one(store: SqlStore, clock: MovedClock) -> None:
    assert await store.calls(ACCOUNT) == Calls(last_at=await store.born_at(), missed=0)
    now = datetime.now(UTC)
    await store.receive(Arrival(transaction_id=f"{ACCOUNT}.a", account_id=ACCOUNT, at=now + HOUR, event=False))
    for number in range(3):
        later = now + (2 + number) * HOUR
        found = Arrival(
            transaction_id=f"{ACCOUNT}.{number}", account_id=ACCOUNT, at=later, event=False, source="reconcile"
        )
        await store.receive(found)
    assert await store.calls(ACCOUNT) == Calls(last_at=now + HOUR, missed=3)


# --- told once -------------------------------------------------------------------------------------------------------


def named(news: tuple[News, ...]) -> dict[str, list[str]]:
    return told(tuple(one.concern for one in news))


async def test_news_is_told_once_by_each_way(store: SqlStore) -> None:
    enter(store, "one", outcome="failed", reason="no", closed_at=datetime.now(UTC))
    for _ in range(2):  # until it is told it is news
        assert named(await store.news(ACCOUNT, "mail", EVERYTHING)) == {"failed": ["one"]}
    (news,) = await store.news(ACCOUNT, "mail", EVERYTHING)
    assert news.told_at is None
    await store.told(ACCOUNT, "mail", news.latest)
    assert await store.news(ACCOUNT, "mail", EVERYTHING) == ()
    assert named(await store.news(ACCOUNT, "url", EVERYTHING)) == {"failed": ["one"]}
    enter(store, "two", outcome="failed", reason="no", closed_at=datetime.now(UTC))
    (news,) = await store.news(ACCOUNT, "mail", EVERYTHING)
    assert told((news.concern,)) == {"failed": ["two"]}
    assert news.told_at is not None


async def test_what_was_found_after_the_reading_stays_news(store: SqlStore, clock: MovedClock) -> None:
    enter(store, "one", outcome="failed", closed_at=datetime.now(UTC))
    (first,) = await store.news(ACCOUNT, "mail", EVERYTHING)
    clock.advance(60)
    enter(store, "two", outcome="failed", closed_at=datetime.now(UTC))
    await store.news(ACCOUNT, "mail", EVERYTHING)  # by another process, while this one is telling
    await store.told(ACCOUNT, "mail", first.latest)
    assert named(await store.news(ACCOUNT, "mail", EVERYTHING)) == {"failed": ["two"]}


async def test_what_comes_back_is_told_again(store: SqlStore, clock: MovedClock) -> None:
    async def news() -> tuple[News, ...]:
        clock.advance(60)
        return await store.news(ACCOUNT, "mail", EVERYTHING)

    await store.pause(ACCOUNT, "email", "535", by=None, probe_in=60)
    (first,) = await news()
    await store.told(ACCOUNT, "mail", first.latest)
    assert await news() == ()
    await store.resume(ACCOUNT, "email")
    assert await news() == ()
    await store.pause(ACCOUNT, "email", "535", by=None, probe_in=60)
    (again,) = await news()
    assert again.concern.cases[0].subject == "email"
    assert again.told_at is not None  # so that what comes and goes can be told seldom
    await store.resume(ACCOUNT, "email")
    assert await news() == ()  # gone before it was told


async def test_what_a_person_ordered_and_what_mends_itself_is_no_news(store: SqlStore) -> None:
    now = datetime.now(UTC)
    await store.pause(ACCOUNT, "email", "holidays", by="kari", probe_in=None)
    enter(store, "overdue", lane="sms", due_at=now - HOUR)
    assert await store.news(ACCOUNT, "mail", EVERYTHING) == ()


async def test_what_the_record_does_not_tell_is_news_too(store: SqlStore) -> None:
    silent = Concern(condition=Condition.SILENCE, count=1, cases=(Case(subject="", reason="quiet", since=FRIDAY),))
    (news,) = await store.news(ACCOUNT, "mail", [*EVERYTHING, silent])
    assert [case.reason for case in news.concern.cases] == ["quiet"]
    await store.told(ACCOUNT, "mail", news.latest)
    assert await store.news(ACCOUNT, "mail", [*EVERYTHING, silent]) == ()


async def test_a_quiet_minute_writes_nothing(store: SqlStore) -> None:
    enter(store, "one", outcome="failed", closed_at=datetime.now(UTC))
    await store.news(ACCOUNT, "mail", EVERYTHING)
    written: list[str] = []
    event.listen(store._engines.writer, "before_cursor_execute", lambda _c, _cur, sql, *_: written.append(sql))
    await store.news(ACCOUNT, "mail", EVERYTHING)
    assert written == []


async def test_concerns_use_the_indexes(store: SqlStore) -> None:
    at = datetime.now(UTC) - 10 * DAY
    kinds = ["completed"] * 95 + ["open", "failed", "cancelled", "skipped", "skipped"]
    rows = [
        {
            "id": f"{ACCOUNT}.{n}",
            "account_id": ACCOUNT,
            "transaction_id": f"{ACCOUNT}.{n}",
            "received_at": at + timedelta(minutes=n),
            "kind": "invoice",
            "outcome": kinds[n % 100],
            "lane": "email",
            "closed_at": at,
        }
        for n in range(5000)
    ]
    with store._engines.writer.connect() as connection:
        connection.execute(insert(deliveries), rows)
        connection.execute(text("ANALYZE"))
        connection.commit()
    said: list[tuple[str, Any]] = []
    event.listen(
        store._engines.readers, "before_cursor_execute", lambda _c, _cur, sql, values, *_: said.append((sql, values))
    )
    await store.concerns(ACCOUNT)
    await store.calls(ACCOUNT)
    await store.news(ACCOUNT, "mail", EVERYTHING)
    asked = [(sql, values) for sql, values in said if "FROM deliveries" in sql]
    assert len(asked) == 4
    with store._engines.readers.connect() as connection:
        postgres = connection.dialect.name == "postgresql"
        for sql, values in asked:
            explained = connection.exec_driver_sql(("EXPLAIN " if postgres else "EXPLAIN QUERY PLAN ") + sql, values)
            plan = "\n".join(map(str, explained))
            assert "Seq Scan on deliveries" not in plan
            assert "SCAN deliveries" not in plan.replace("SCAN deliveries USING INDEX deliveries_newest", "")


# --- words -----------------------------------------------------------------------------------------------------------


def test_every_condition_has_its_words() -> None:
    assert set(ABOUT) == set(Condition)


def a_case(number: int = 1, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "subject": f"{ACCOUNT}.{number}",
        "reason": "the transaction has no usable e-mail address",
        "since": FRIDAY - HOUR,
        "invoice_number": f"A1B2C-{number:06}",
        "amount": 125000,
        "currency": "NOK",
    }
    return Case(**(values | changes))


def concern(condition: Condition, *cases: Case, count: int | None = None) -> Concern:
    return Concern(condition=condition, count=count or len(cases), cases=cases)


HEADING = Heading(account_id="P12345678", merchant="Nordmann Sykkel", now=FRIDAY, timezone=OSLO)


def test_a_digest_says_which_why_and_what_to_type() -> None:
    notice = digest([concern(Condition.FAILED, a_case(1), a_case(2))], HEADING)
    assert notice is not None
    assert notice.subject == "Nordmann Sykkel: 2 invoices did not go out"
    assert "Fri 20 Nov 2026 07:30" in notice.text
    lines = notice.text.splitlines()
    assert lines.count("  the transaction has no usable e-mail address") == 1  # one reason, and whom it is about
    assert f"    A1B2C-000002   1250.00 NOK   since Fri 20 Nov 06:30   {ACCOUNT}.2" in lines
    assert "  merchant-delivery deliveries retry ID" in lines
    assert "  merchant-delivery deliveries retry --outcome failed" in lines
    assert max(map(len, lines)) < 100


def test_a_single_case_comes_with_its_commands_ready() -> None:
    notice = urgent_notice([concern(Condition.FAILED, a_case(7))], HEADING)
    assert notice.subject == "[urgent] Nordmann Sykkel: 1 invoice did not go out"
    assert "  merchant-delivery deliveries resend A1B2C-000007 --to ADDRESS" in notice.text.splitlines()
    assert "--outcome failed" not in notice.text
    lane = concern(Condition.PAUSED, Case(subject="email", reason="535 no", since=FRIDAY))
    assert "  merchant-delivery resume email" in urgent_notice([lane], HEADING).text.splitlines()
    unnamed = concern(Condition.FAILED, a_case(8, invoice_number=None, amount=None))
    assert f"deliveries retry {ACCOUNT}.8" in urgent_notice([unnamed], HEADING).text


def test_only_some_of_many_are_named() -> None:
    cases = tuple(map(a_case, range(20)))
    text = urgent_notice([concern(Condition.FAILED, *cases, count=214)], HEADING).text
    assert text.count("A1B2C-") == 10
    assert "… and 204 more" in text


def test_no_digest_without_anything_to_do() -> None:
    assert digest([], HEADING) is None
    assert digest([concern(Condition.IN_DOUBT, a_case())], HEADING) is None


def test_what_matters_most_comes_first() -> None:
    ordered = in_order(concern(condition, a_case()) for condition in reversed(Condition))
    assert [one.condition for one in ordered] == list(ABOUT)
    assert ordered[0].condition is Condition.PAUSED
    notice = urgent_notice(ordered, HEADING)
    assert notice.text.index("SENDING IS PAUSED") < notice.text.index("DID NOT GO OUT")
    assert notice.subject.endswith("and 12 more")


def test_a_test_account_is_named_as_one() -> None:
    heading = Heading(account_id=ACCOUNT, merchant="Butikken", now=FRIDAY, timezone=OSLO)
    assert outage_notice("disk full", FRIDAY, heading).subject.endswith("(test account)")


def test_a_finding_says_since_when_by_whom_and_how_to_go_on() -> None:
    by_kari = Case(subject="email", reason="a new relay", since=FRIDAY, by="kari")
    by_itself = Case(subject="provider", reason="403", since=FRIDAY)
    paused, provider, others = findings(
        [concern(Condition.PAUSED, by_kari, by_itself), concern(Condition.FAILED, a_case(), a_case())], OSLO
    )
    assert (paused.name, paused.ok) == ("pause email", False)
    for word in ("20 Nov 2026 07:30", "by kari", "a new relay", "`merchant-delivery resume email`"):
        assert word in paused.detail
    assert "by the service" in provider.detail
    assert (others.name, others.ok, others.detail) == ("deliveries", True, "2 invoices did not go out")
    (quiet,) = findings([], OSLO)
    assert quiet.ok


# --- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [
        ("2026-11-20T08:00", "2026-11-20T18:00", 10),
        ("2026-11-20T17:00", "2026-11-23T09:30", 2.5),  # over a weekend
        ("2026-11-21T00:00", "2026-11-22T23:00", 0),
        ("2026-11-20T19:00", "2026-11-20T23:00", 0),
        ("2026-11-20T09:00", "2026-11-20T09:30", 0.5),
        ("2026-11-02T08:00", "2026-11-16T08:00", 100),
        ("2026-10-23T18:00", "2026-10-26T10:00", 2),  # summer time ended in between
        ("2026-11-20T12:00", "2026-11-20T11:00", 0),
    ],
)
def test_working_hours_are_counted(since: str, until: str, hours: float) -> None:
    begin, end = (datetime.fromisoformat(at).replace(tzinfo=OSLO) for at in (since, until))
    assert working_hours(begin, end, OSLO) == hours


def test_silence_is_told_with_what_was_missed() -> None:
    calls = Calls(last_at=FRIDAY - 7 * DAY, missed=12)
    found = silence(calls, hours=20, now=FRIDAY, zone=OSLO)
    assert found is not None
    assert "12 transactions were found without one" in (found.cases[0].reason or "")
    assert silence(calls, hours=0, now=FRIDAY, zone=OSLO) is None
    assert silence(Calls(last_at=FRIDAY - DAY, missed=0), hours=20, now=FRIDAY, zone=OSLO) is None


# --- figures ---------------------------------------------------------------------------------------------------------


async def test_every_concern_and_lane_has_its_figure(store: SqlStore) -> None:
    metrics = Metrics()
    metrics.show_channels(["email", "sms"])
    await store.receive(arrival())
    await store.pause(ACCOUNT, "email", "535", by=None, probe_in=60)
    await store.pause(ACCOUNT, "gone", "a channel that is set no more", by="kari", probe_in=None)
    shown = metrics.render(await store.counts(), await store.concerns(ACCOUNT)).decode().splitlines()
    for condition in Condition:
        number = 2 if condition is Condition.PAUSED else 0
        assert f'merchant_delivery_concerns{{concern="{condition}"}} {number}.0' in shown
    for lane, number in {"email": 1, "gone": 1, "provider": 0, "sms": 0}.items():
        assert f'merchant_delivery_paused{{lane="{lane}"}} {number}.0' in shown
