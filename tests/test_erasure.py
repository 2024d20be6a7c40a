"""Forgetting people: what becomes of every column, what stays searchable, and that nothing is left in any file."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Ran
from sqlalchemy import event, insert, select, text

from service.chores import Chore, Chores
from service.cli import cli
from service.delivery import (
    Delivery,
    Entry,
    Fate,
    LeaseLost,
    Outcome,
    Report,
    Reported,
    Result,
    Schedule,
    Settled,
    Step,
)
from service.evidence import evidence, verify
from service.metrics import Metrics
from service.privacy import address_key, number_key
from service.retention import BATCH, EVERY, retention
from service.store import SqlStore, open_store
from service.store.erasure import PERSONAL
from service.store.tables import alerts, deliveries, history, metadata, transactions
from tests.fakes import MovedClock
from tests.stage import Stage, open_stage
from tests.store_values import (
    ACCOUNT,
    AT,
    CLOSED,
    NEVER,
    arrival,
    capture,
    claim_all,
    claimed,
    entry,
    only,
    request,
    send,
)
from tests.test_process import stored

ID = arrival().transaction_id
ADDRESS = "Ola.Nordmann@nordmann.example"
REFERENCE = "Order-Nordmann-77"
ORGANIZATION = "NO 923 456 789 MVA"
TRACES = ("nordmann", "Bergliot", "sorgenfri", "923456789")
BY_REQUEST = Entry(at=AT, step=Step.OPERATOR, result=Result.ACCEPTED, detail="personal data erased by the-operator")


async def known(store: SqlStore, number: int | str = 1, *, address: str = ADDRESS, **changed: Any) -> Delivery:
    """Put a delivery into the record that was sent, captured and closed, with a person in every corner of it."""
    claim = await claimed(store, number)
    key = claim.delivery.id
    sent = send(key, recipient="o***@nordmann.example", recipient_key=address_key(ACCOUNT, address))
    await store.begin_send(claim, sent)
    answer = "250 Ok for Bergliot at sorgenfri"
    accepted = replace(sent, outcome=Settled.ACCEPTED, answer=answer, settled_at=AT)
    await store.settle_send(accepted, [replace(entry(answer), message_id=sent.message_id)])
    captured = capture(key)
    await store.begin_capture(claim, captured)
    done = replace(captured, outcome=Settled.ACCEPTED, detail="for Bergliot Nordmann", settled_at=AT)
    await store.settle_capture(done, [], began_at=AT)
    values: dict[str, Any] = {
        "merchant_reference": REFERENCE,
        "organization_key": number_key(ACCOUNT, ORGANIZATION),
        "recipient": sent.recipient,
        "recipient_key": sent.recipient_key,
        "channel": "email",
        "invoice_number": f"A{number}",
        "reason": "Bergliot phoned",
    }
    saved = replace(claim.delivery, **(CLOSED | values | changed))
    later = Schedule(due_in=9e9 if saved.outcome is Outcome.OPEN else None)
    await store.save(claim, saved, later, [entry("told Bergliot")])
    with store._engines.writer.connect() as connection, connection.begin():
        row = {"account_id": ACCOUNT, "way": "mail", "name": "alarm.failed", "subject": key, "first_at": AT}
        connection.execute(insert(alerts).values(row | {"detail": "Bergliot waits"}))
    (delivery,) = await store.find(key)
    return delivery


async def erased(store: SqlStore, *ids: str) -> tuple[str, ...]:
    return await store.erase(ids or (ID,), BY_REQUEST)


def left(url: str, *words: str) -> list[str]:
    """Return which traces of a person the database still holds; of SQLite, in any byte of any file."""
    everything = stored(url).lower()
    return [word for word in words or TRACES if word.lower() in everything]


def holds(store: SqlStore, dossier: Any) -> bool:
    return all(finding.holds for finding in verify(evidence(dossier, made_at=AT, program="x")))


# --- the list --------------------------------------------------------------------------------------------------------


def test_every_column_of_every_table_is_decided_once() -> None:
    decided = [(columns.table.name, name) for columns in PERSONAL for name in columns.names]
    assert len(set(decided)) == len(decided)
    assert set(decided) == {(table.name, column.name) for table in metadata.sorted_tables for column in table.columns}
    assert all(columns.why for columns in PERSONAL)


async def test_nothing_of_a_person_is_left(store: SqlStore, database_url: str) -> None:
    before = await known(store)
    assert set(left(database_url)) == {"nordmann", "Bergliot", "sorgenfri"}  # the number was a hash from the start
    assert await erased(store) == (ID,)
    await store.close()
    assert left(database_url) == []
    assert before.recipient_key is not None


async def test_what_is_no_persons_stays(store: SqlStore) -> None:
    before = await known(store)
    await erased(store)
    after = await only(store)
    assert after.erased_at is not None
    assert after.merchant_reference != before.merchant_reference
    assert after == replace(
        before,
        recipient="erased",
        reason="erased",
        merchant_reference=after.merchant_reference,
        erased_at=after.erased_at,
    )
    (sent,) = await store.sends(ID)
    assert (sent.recipient, sent.answer, sent.recipient_key) == ("erased", None, before.recipient_key)
    assert (sent.sha256, sent.message_id, sent.outcome) == ("0" * 64, "<abc@merchant.example>", Settled.ACCEPTED)
    (captured,) = await store.captures(ID)
    assert (captured.detail, captured.reference) == (None, f"capture-{ID}")
    lines = await store.history(ID)
    assert [(line.step, line.detail) for line in lines] == [
        (Step.RECEIVE, None),
        (Step.DELIVER, None),
        (Step.DELIVER, None),
        (Step.OPERATOR, "personal data erased by the-operator"),
    ]
    with store._engines.readers.connect() as connection:
        assert connection.execute(select(alerts.c.detail)).scalars().all() == [None]
        salts = connection.execute(select(history.c.salt).order_by(history.c.id)).scalars().all()
        assert [salt is None for salt in salts] == [True, True, True, False]


async def test_what_was_empty_stays_empty(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.save(claim, replace(claim.delivery, **CLOSED), NEVER)
    await erased(store)
    after = await only(store)
    assert (after.recipient, after.reason, after.merchant_reference) == (None, None, None)


async def test_the_evidence_still_verifies_and_an_earlier_copy_proves_the_words(store: SqlStore) -> None:
    await known(store)
    before = await store.dossier(ID)
    await erased(store)
    after = await store.dossier(ID)
    assert holds(store, after)
    assert [link.hash for link in after.links[:-1]] == [link.hash for link in before.links]
    kept = {link.hash: link for link in before.links}
    assert kept[after.links[1].hash].entry.detail == "250 Ok for Bergliot at sorgenfri"
    words = json.loads(evidence(after, made_at=AT, program="x"))["delivered_rests_on"]
    assert "recipient since erased" in words


# --- who is left alone -----------------------------------------------------------------------------------------------


async def test_what_is_open_or_in_hand_or_erased_already_is_left_alone(store: SqlStore, clock: MovedClock) -> None:
    await known(store, 1)
    await known(store, 2, outcome=Outcome.OPEN, closed_at=None)
    await known(store, 3)
    (held,) = [key for key in [arrival(3).transaction_id] if await store.receive(arrival(3, event=True))]
    (claim,) = await claim_all(store)
    assert claim.delivery.id == held
    everything = [arrival(n).transaction_id for n in (1, 2, 3)]
    assert await erased(store, *everything) == (everything[0],)
    assert await erased(store, *everything) == ()
    assert (await only(store, 2)).merchant_reference == REFERENCE
    assert (await only(store, 3)).merchant_reference == REFERENCE
    assert len(await store.history(everything[0])) == 4
    clock.advance(61)
    assert await erased(store, *everything) == (held,)
    with pytest.raises(LeaseLost):
        await store.save(claim, claim.delivery, NEVER)
    assert (await only(store, 3)).recipient == "erased"


async def test_nobody_is_nothing(store: SqlStore) -> None:
    assert await erased(store, "nobody") == ()
    assert await store.erase((), BY_REQUEST) == ()


# --- what comes later ------------------------------------------------------------------------------------------------


async def test_a_later_read_and_a_later_word_bring_nothing_back(store: SqlStore, database_url: str) -> None:
    before = await known(store)
    await erased(store)
    await store.receive(arrival(event=True))
    (claim,) = await claim_all(store)
    read = replace(
        claim.delivery,
        merchant_reference=REFERENCE,
        recipient=before.recipient,
        reason="Bergliot again",
        voided_at=AT,
        organization_key=number_key(ACCOUNT, ORGANIZATION),
    )
    voided = Entry(at=AT, step=Step.CLOSE, result=Result.ACCEPTED, detail="voided; Bergliot had it")
    await store.save(claim, read, NEVER, [voided])
    await store.cancel(ID, request("Bergliot asked"))
    late = send(ID, 9, outcome=Settled.ACCEPTED, answer="250 to Bergliot", settled_at=AT)
    await store.settle_send(late, [replace(entry("250 to Bergliot"), message_id=late.message_id)])
    late_capture = capture(ID, 9, outcome=Settled.UNCONFIRMED, detail="Bergliot's", settled_at=AT)
    await store.settle_capture(late_capture, [])
    after = await only(store)
    assert (after.recipient, after.reason, after.voided_at) == ("erased", "erased", AT)
    assert after.erased_at is not None
    assert [link.detail_hash is None for link in (await store.dossier(ID)).links[-3:]] == [False] * 3
    assert holds(store, await store.dossier(ID))
    await store.close()
    assert left(database_url) == []


async def test_opened_again_it_is_as_any_other_and_erased_afresh(store: SqlStore, database_url: str) -> None:
    await known(store)
    await erased(store)
    reopened = await store.retry(ID, request("Bergliot asked"))
    assert (reopened.outcome, reopened.erased_at) == (Outcome.OPEN, None)
    assert await erased(store) == ()
    (claim,) = await claim_all(store)
    closing = {"merchant_reference": REFERENCE, "recipient": "o***@nordmann.example"}
    await store.save(claim, replace(claim.delivery, **(CLOSED | closing)), NEVER, [entry("Bergliot")])
    after = await only(store)
    assert (after.erased_at, after.merchant_reference) == (None, REFERENCE)
    assert await erased(store) == (ID,)
    assert holds(store, await store.dossier(ID))
    await store.close()
    assert left(database_url) == []


# --- searching -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference", [ADDRESS, "ola.nordmann@NORDMANN.example", REFERENCE, ORGANIZATION, "923456789", "A1", ID]
)
@pytest.mark.parametrize("forget", [False, True])
async def test_it_is_found_by_what_was_erased(store: SqlStore, reference: str, *, forget: bool) -> None:
    await known(store)
    await known(store, 2, address="kari@fjord.example", merchant_reference="other", organization_key=None)
    if forget:
        await erased(store)
    assert [found.id for found in await store.find(reference)] == [ID]


async def test_a_reference_finds_what_was_erased_beside_what_was_not(store: SqlStore) -> None:
    await known(store, 1)
    await known(store, 2)
    await erased(store)
    assert {found.id for found in await store.find(REFERENCE)} == {ID, arrival(2).transaction_id}
    assert await store.find("erased") == ()


async def test_a_key_is_an_accounts_own(store: SqlStore) -> None:
    await known(store, 1)
    other = replace(arrival(2), account_id="P87654321")
    await store.receive(other)
    (claim,) = await store.claim("P87654321", "provider", 9, lease=60, suspects=False)
    key = address_key("P87654321", ADDRESS)
    await store.save(claim, replace(claim.delivery, **CLOSED, recipient_key=key, recipient="o***@x"), NEVER)
    assert {found.id for found in await store.find(ADDRESS)} == {ID, other.transaction_id}
    assert address_key(ACCOUNT, ADDRESS) != key


async def test_whom_it_concerns_is_found_wherever_it_went(store: SqlStore) -> None:
    await known(store, 1)
    await known(store, 2, address="kari@fjord.example", organization_key=None)
    await store.resend(arrival(2).transaction_id, request(to="Kari.New@fjord.example"))

    async def ids(**whom: Any) -> set[str]:
        return {found.id for found in await store.concerning(**whom)}

    one, two = ID, arrival(2).transaction_id
    assert await ids(addresses=[ADDRESS]) == {one}
    assert await ids(addresses=["KARI@fjord.example"]) == {two}
    assert await ids(addresses=["kari.new@fjord.example"]) == {two}
    assert await ids(organization_number="923 456 789") == {one}
    assert await ids(addresses=["nobody@fjord.example"]) == await ids(organization_number="-") == await ids() == set()


# --- retention -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def chores(store: SqlStore, clock: MovedClock) -> Chores:
    forget = retention(store, account_id=ACCOUNT, days=400, clock=clock)
    chore = Chore(name="retention", every=EVERY, run=forget)
    return Chores((chore,), store=store, clock=clock, metrics=Metrics(), account_id=ACCOUNT, stop_grace=1)


async def test_what_was_reported_of_a_message_loses_its_words(store: SqlStore, database_url: str) -> None:
    await known(store)
    words = "Bergliot's mailbox at sorgenfri is full"
    reference = "<abc@merchant.example>"
    report = Report(channel="email", event_id="1", reference=reference, fate=Fate.DEFERRED, detail=words)
    assert await store.report(ACCOUNT, report) is Reported.RECORDED
    assert left(database_url, "bergliot") == ["bergliot"]
    assert await erased(store) == (ID,)
    await store.close()
    assert left(database_url, "bergliot") == []


async def test_what_was_closed_long_ago_is_forgotten_daily(
    store: SqlStore, clock: MovedClock, chores: Chores, database_url: str
) -> None:
    now = clock.now()
    await known(store, 1, closed_at=now - timedelta(days=401))
    await known(store, 2, closed_at=now - timedelta(days=399, hours=12), outcome=Outcome.FAILED)
    await known(store, 3, outcome=Outcome.OPEN, closed_at=None)
    other = replace(arrival(4), account_id="P87654321")
    await store.receive(other)
    (claim,) = await store.claim("P87654321", "provider", 9, lease=60, suspects=False)
    await store.save(claim, replace(claim.delivery, outcome=Outcome.SKIPPED, closed_at=AT, reason="x"), NEVER)

    async def forgotten() -> list[bool]:
        found = [await store.find(arrival(n).transaction_id) for n in (1, 2, 3, 4)]
        return [one.erased_at is not None for (one,) in found]

    assert await chores.look() == ("retention",)
    assert await forgotten() == [True, False, False, False]
    line = (await store.history(ID))[-1]
    assert (line.step, line.detail) == (Step.CLOSE, "personal data erased 400 days after it was closed")
    clock.advance(EVERY / 2)
    assert await chores.look() == ()
    clock.advance(EVERY / 2 + 1)
    assert await chores.look() == ("retention",)
    assert await forgotten() == [True, True, False, False]


async def test_the_service_does_it_by_itself(tmp_path: Path) -> None:
    settings = {"DELIVERY_RETAIN_PERSONAL_DAYS": "30"}
    async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=settings) as stage:
        transaction_id = stage.sell()
        await stage.settle()
        stage.clock.advance(29 * 86400.0)
        assert "retention" in await stage.app.chores.look()
        assert (await stage.delivery(transaction_id)).erased_at is None
        stage.clock.advance(2 * 86400.0)
        assert "retention" in await stage.app.chores.look()
        assert (await stage.delivery(transaction_id)).erased_at is not None


async def test_many_are_forgotten_in_batches(store: SqlStore, clock: MovedClock, chores: Chores) -> None:
    many = 2 * BATCH + 5
    await asyncio.gather(*(store.receive(arrival(n)) for n in range(many)))
    saves = [
        store.save(claim, replace(claim.delivery, **CLOSED, merchant_reference=REFERENCE), NEVER)
        for claim in await store.claim(ACCOUNT, "provider", many, lease=60, suspects=False)
    ]
    await asyncio.gather(*saves)
    clock.advance(500 * 86400.0)
    commits: list[int] = []
    event.listen(store._engines.writer, "commit", lambda _connection: commits.append(1))
    assert await chores.look() == ("retention",)
    assert len(commits) == 3 + 2  # and the turn, taken and given back
    assert all(one.erased_at for one in await store.listing())
    with store._engines.readers.connect() as connection:
        references = set(connection.execute(select(transactions.c.merchant_reference)).scalars())
    assert len(references) == 1
    assert next(iter(references)).startswith("erased:")


async def test_old_ones_are_found_by_their_index(store: SqlStore) -> None:
    said: list[tuple[str, Any]] = []
    event.listen(
        store._engines.writer, "before_cursor_execute", lambda _c, _k, sql, values, *_: said.append((sql, values))
    )
    with store._engines.writer.connect() as connection, connection.begin():
        rows = [
            {"id": f"{n}", "account_id": ACCOUNT, "transaction_id": f"{n}", "received_at": AT, "kind": "invoice"}
            | {"outcome": "completed", "lane": "provider", "closed_at": AT + timedelta(minutes=n), "erased_at": AT}
            for n in range(3000)
        ]
        rows[1500]["erased_at"] = None
        connection.execute(insert(deliveries), rows)
        connection.execute(text("ANALYZE"))
    said.clear()
    assert await store.erase_old(ACCOUNT, AT + timedelta(days=99), limit=10, entry=BY_REQUEST) == 1
    sql, values = next(one for one in said if one[0].startswith("SELECT deliveries."))
    with store._engines.writer.connect() as connection:
        explain = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        assert "deliveries_personal" in "\n".join(map(str, connection.exec_driver_sql(explain + sql, values)))


# --- the command -----------------------------------------------------------------------------------------------------


def command(*arguments: str) -> Ran:
    return CliRunner().invoke(cli, list(arguments), prog_name="merchant-delivery")


def records(url: str, *numbers: int, **changed: Any) -> None:
    async def enter() -> None:
        async with open_store(url, clock=MovedClock()) as store:
            for number in numbers:
                await known(store, number, **changed)

    asyncio.run(enter())


def erased_ones(url: str) -> list[str]:
    async def look() -> list[str]:
        async with open_store(url, clock=MovedClock(), migrate=False) as store:
            return sorted(one.transaction_id for one in await store.listing() if one.erased_at)

    return asyncio.run(look())


@pytest.fixture
def url(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DELIVERY_DATABASE_URL", sqlite_url)
    return sqlite_url


@pytest.mark.parametrize(
    "whom",
    [
        ("--email", "OLA.nordmann@nordmann.example"),
        ("--organization", "923 456 789"),
        (ID,),
    ],
)
def test_a_person_is_forgotten_now(url: str, whom: tuple[str, ...]) -> None:
    records(url, 1)
    records(url, 2, address="kari@fjord.example", merchant_reference="other", organization_key=None)
    done = command("erase", *whom, "--yes", "--reason", "asked by letter, OLA.nordmann@nordmann.example")
    assert (done.exit_code, done.stdout) == (0, f"{ID}: what was personal in it is erased.\n")
    assert "1 delivery, for good" in done.stderr
    assert erased_ones(url) == [ID]
    shown = json.loads(command("deliveries", "show", REFERENCE, "--json").stdout)
    assert shown["erased_at"] is not None
    assert (shown["recipient"], shown["reason"]) == ("erased", "erased")
    assert "asked by letter, ***" in shown["history"][-1]["detail"]
    again = command("erase", *whom, "--yes")
    assert (again.exit_code, again.stdout) == (0, f"{ID} was erased before.\n")


@pytest.mark.parametrize("written", ["+47 400 00 001", "0047 40000001", "+4740000001"])
def test_a_telephone_number_is_known_however_it_is_written(url: str, written: str) -> None:
    records(url, 1, address="+4740000001")
    assert command("erase", "--phone", written, "--yes").exit_code == 0
    assert erased_ones(url) == [ID]


def test_what_is_open_is_refused_with_what_to_do(url: str) -> None:
    records(url, 1)
    records(url, 2, outcome=Outcome.OPEN, closed_at=None)
    two = arrival(2).transaction_id
    done = command("erase", "--email", ADDRESS, "--yes")
    assert done.exit_code == 1
    assert f"deliveries cancel {two}" in done.stderr
    assert erased_ones(url) == [ID]
    assert command("deliveries", "cancel", two).exit_code == 0
    assert command("erase", "--email", ADDRESS, "--yes").exit_code == 0
    assert erased_ones(url) == [ID, two]


def test_it_asks_and_does_nothing_without_an_answer(url: str) -> None:
    records(url, 1)
    done = command("erase", ID)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--yes" in done.stderr
    assert erased_ones(url) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (ID, "--email", ADDRESS),
        ("--email", ADDRESS, "--phone", "+4740000001"),
        ("--email", "nobody"),
        ("--phone", "40000001"),
        ("--organization", "none"),
    ],
)
def test_whom_must_be_plain(url: str, arguments: tuple[str, ...]) -> None:
    records(url, 1)
    assert command("erase", *arguments, "--yes").exit_code == 2
    assert erased_ones(url) == []


@pytest.mark.parametrize("whom", [("--email", "nobody@fjord.example"), ("--organization", "1"), ("T99",)])
def test_who_is_not_known_is_1(url: str, whom: tuple[str, ...]) -> None:
    records(url, 1)
    done = command("erase", *whom, "--yes")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "known by" in done.stderr
    assert erased_ones(url) == []


# --- the whole -------------------------------------------------------------------------------------------------------


def personal(stage: Stage, transaction_id: str) -> set[str]:
    """Return what names somebody in the provider's document, and its parts."""
    transaction = stage.provider.transaction(transaction_id)
    words = {transaction["merchant_reference"]}
    for party in (transaction["billing_address"], transaction["customer"]):
        for name, value in party.items():
            if name not in ("country", "postal_code") and isinstance(value, str):
                words |= {value, *value.split("@")}
    return {word for word in words if word}


async def test_of_a_real_delivery_no_byte_of_the_customer_is_left(database_url: str) -> None:
    async with open_stage(database_url) as stage:
        one = stage.sell(buyer="business", reference="Order-Solberg-1")
        two = stage.sell(buyer="consumer", reference="Order-Nordmann-2")
        await stage.settle()
        store = stage.app.store
        words = personal(stage, one) | personal(stage, two)
        assert len(words) > 15
        email = stage.provider.transaction(one)["billing_address"]["email"]
        number = stage.provider.transaction(one)["billing_address"]["organization_number"]
        assert [found.id for found in await store.find(email)] == [one]
        assert [found.id for found in await store.concerning(organization_number=number)] == [one]
        await store.retry(one, request("Kari Solberg phoned"))
        await stage.settle()
        assert {one.outcome for one in await store.listing()} == {Outcome.COMPLETED}
        assert left(database_url, "Order-Solberg-1", "Order-Nordmann-2", "Kari Solberg") != []
        assert set(await store.erase((one, two), BY_REQUEST)) == {one, two}
        stage.provider.void(one)
        await stage.settle()  # read again because of the callback
        (after,) = await store.find(email)
        assert after.id == one
        assert after.voided_at is not None
        assert after.merchant_reference != "Order-Solberg-1"
        assert [found.id for found in await store.find("Order-Nordmann-2")] == [two]
        for transaction_id in (one, two):
            assert holds(store, await store.dossier(transaction_id))  # type: ignore[arg-type]
    assert left(database_url, *words, "Kari Solberg") == []


async def test_a_command_beside_a_service_that_runs_leaves_nothing_in_the_log(
    sqlite_url: str, tmp_path: Path, clock: MovedClock
) -> None:
    """The process that erases is not the last to close the file, so it empties the log by itself."""
    async with open_store(sqlite_url, clock=clock) as running:
        await known(running)
        async with open_store(sqlite_url, clock=clock, migrate=False) as command_of_ours:
            await erased(command_of_ours)
        assert left(sqlite_url) == []
        assert (await only(running)).recipient == "erased"


async def test_the_organisation_is_known_from_the_first_read(tmp_path: Path) -> None:
    async with open_stage(f"sqlite:///{tmp_path}/d.db") as stage:
        key = stage.sell(buyer="business", channel="kravia")
        await stage.settle()
        number = stage.provider.transaction(key)["billing_address"]["organization_number"]
        delivery = await stage.delivery(key)
        assert (delivery.outcome, delivery.organization_key) == (Outcome.SKIPPED, number_key(ACCOUNT, number))
        assert (
            number_key(ACCOUNT, "NO 999 999 999 MVA") == number_key(ACCOUNT, "999999999") == delivery.organization_key
        )
        assert number_key(ACCOUNT, None) is number_key(ACCOUNT, "none") is None
