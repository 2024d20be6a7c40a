"""Listings: filters, pages, and that a page is read by an index in its order, however many there are."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert

from service.delivery import ALL, Delivery, Filter, Outcome
from service.store import SqlStore
from service.store.tables import deliveries
from tests.store_values import ACCOUNT, AT, arrival, only, request

OUTCOMES = ("completed", "completed", "completed", "skipped", "open", "failed", "completed", "cancelled")
ONE_PAGE = 7


def rows(count: int) -> list[dict[str, Any]]:
    """Return rows of every outcome, of which each three came at the same time."""
    return [
        {
            "id": f"{ACCOUNT}.{n:05d}",
            "account_id": ACCOUNT,
            "transaction_id": f"{ACCOUNT}.{n:05d}",
            "received_at": AT + timedelta(seconds=n // 3),
            "kind": "invoice",
            "outcome": OUTCOMES[n % len(OUTCOMES)],
            "lane": "provider",
            "due_at": None,
            "reason": None if n % 5 else f"No address at 100% (number {n})",
            "channel": ("email", "sms", None)[n % 3],
        }
        for n in range(count)
    ]


@pytest.fixture
def many(store: SqlStore) -> list[dict[str, Any]]:
    entered = rows(600)
    with store._engines.writer.connect() as connection:
        connection.execute(insert(deliveries), entered)
        connection.commit()
    return sorted(entered, key=lambda row: (-row["received_at"].timestamp(), row["id"]))


SECONDS = [AT + timedelta(seconds=n) for n in range(200)]
FILTERS = [
    ALL,
    Filter(outcomes=(Outcome.FAILED,)),
    Filter(outcomes=(Outcome.FAILED, Outcome.OPEN, Outcome.FAILED)),
    Filter(outcomes=(Outcome.COMPLETED, Outcome.SKIPPED)),
    Filter(outcomes=tuple(Outcome)),
    Filter(reason="ADDRESS at 100%"),
    Filter(reason="100_"),
    Filter(reason="a\0b"),
    Filter(channel="sms"),
    Filter(since=SECONDS[50]),
    Filter(until=SECONDS[50]),
    Filter(until=SECONDS[150]),
    Filter(since=SECONDS[150], until=SECONDS[160]),
    Filter(outcomes=(Outcome.OPEN, Outcome.COMPLETED), reason="address", channel="email", since=SECONDS[20]),
    Filter(outcomes=(Outcome.COMPLETED,), until=SECONDS[100], channel="sms"),
]


def fits(row: dict[str, Any], chosen: Filter) -> bool:
    return (
        (not chosen.outcomes or row["outcome"] in chosen.outcomes)
        and (chosen.reason is None or chosen.reason.lower() in (row["reason"] or "").lower())
        and (chosen.channel is None or row["channel"] == chosen.channel)
        and (chosen.since is None or row["received_at"] >= chosen.since)
        and (chosen.until is None or row["received_at"] < chosen.until)
    )


async def paged(store: SqlStore, chosen: Filter, size: int) -> list[Delivery]:
    found: list[Delivery] = []
    while page := await store.listing(chosen, limit=size, after=found[-1] if found else None):
        assert len(page) <= size
        assert page[0] not in found  # or it never ends
        found += page
    return found


@pytest.mark.parametrize("chosen", FILTERS, ids=str)
async def test_pages_hold_what_fits_once_and_in_order(
    store: SqlStore, many: list[dict[str, Any]], chosen: Filter
) -> None:
    wanted = [row["id"] for row in many if fits(row, chosen)]
    assert [found.id for found in await store.listing(chosen)] == wanted
    assert [found.id for found in await paged(store, chosen, 31)] == wanted
    outcomes = {row["id"]: row["outcome"] for row in many}
    assert await store.ids(chosen) == tuple((name, Outcome(outcomes[name])) for name in wanted)


async def test_a_page_goes_on_after_one_that_does_not_fit(store: SqlStore, many: list[dict[str, Any]]) -> None:
    newest = (await store.listing(limit=1))[0]
    for chosen in (Filter(until=SECONDS[50]), Filter(until=newest.received_at), Filter(outcomes=(Outcome.FAILED,))):
        wanted = [row["id"] for row in many if fits(row, chosen) and row["id"] != newest.id]
        assert [found.id for found in await store.listing(chosen, after=newest)] == wanted


async def test_what_comes_in_meanwhile_moves_no_page(store: SqlStore, many: list[dict[str, Any]]) -> None:
    first = await store.listing(limit=10)
    await store.receive(replace(arrival("new"), at=AT + timedelta(days=1)))
    second = await store.listing(limit=10, after=first[-1])
    assert [found.id for found in (*first, *second)] == [row["id"] for row in many[:20]]


async def plans(store: SqlStore, chosen: Filter, after: Delivery | None) -> str:
    """Return how the database finds a page, as it says in the very transaction."""
    found: list[str] = []

    def explain(connection: Connection, _cursor: object, sql: str, values: Any, *_: object) -> None:
        if "FROM deliveries" in sql and not sql.startswith("EXPLAIN"):
            how = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
            found.extend(map(str, connection.exec_driver_sql(how + sql, values)))

    event.listen(store._engines.readers, "before_cursor_execute", explain)
    await store.listing(chosen, limit=ONE_PAGE, after=after)
    event.remove(store._engines.readers, "before_cursor_execute", explain)
    assert found
    return "\n".join(found)


@pytest.mark.parametrize("chosen", FILTERS, ids=str)
async def test_no_page_is_sorted_by_reading_all(store: SqlStore, many: list[dict[str, Any]], chosen: Filter) -> None:
    """Without statistics, as a record is in its first hours: guesses are then at their worst."""
    assert many
    middle = (await store.find(f"{ACCOUNT}.00300"))[0]
    narrowed = 0 < len(set(chosen.outcomes)) < len(Outcome)
    for after in (None, middle):
        plan = await plans(store, chosen, after)
        # With statistics PostgreSQL may find the index by time alone the better one: it is in the right order, too.
        assert "deliveries_newest" in plan or (narrowed and "deliveries_outcome" in plan)
        assert "Seq Scan" not in plan
        assert "Bitmap" not in plan
        assert "Sort  (" not in plan  # PostgreSQL's; a Merge Append has a Sort Key and sorts nothing
        if len(set(chosen.outcomes)) < 2:
            assert "TEMP B-TREE" not in plan  # SQLite's; of several outcomes the few pages are sorted
        if after is not None and "SEARCH" in plan:
            assert "received_at<?" in plan


# --- what an operator decided about ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["retry", "resend", "cancel", "resolve"])
async def test_nothing_is_done_to_what_has_changed_since(store: SqlStore, verb: str) -> None:
    await store.receive(arrival())
    before = await only(store)
    asked = replace(request("all of them"), only_if=Outcome.FAILED)
    more: dict[str, Any] = {"delivered": True} if verb == "resolve" else {}
    assert await getattr(store, verb)(before.id, asked, **more) == before
    assert await only(store) == before
    assert len(await store.history(before.id)) == 1
    after = await getattr(store, verb)(before.id, replace(asked, only_if=Outcome.OPEN), **more)
    assert after == await only(store)
    assert len(await store.history(before.id)) == 2
