"""Evidence: the hash chain as it is written, and what `verify` says of a file that somebody touched."""

import asyncio
import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from click.testing import Result as Ran
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, insert, update

from service.chain import moment
from service.cli import cli
from service.delivery import Dossier, Entry, Fate, Proof, Report, Reported, Result, Settled, Step
from service.evidence import NotEvidence, evidence, verify
from service.store import SqlStore, open_store
from service.store.tables import deliveries, history
from tests.fakes import MovedClock
from tests.stage import attachment, open_stage, parsed
from tests.store_values import (
    AT,
    CLOSED,
    NEVER,
    arrival,
    capture,
    claimed,
    entry,
    plugged,
    request,
    send,
)

ID = arrival().transaction_id


async def delivered(store: SqlStore) -> Dossier:
    """Put a delivery into the record that was sent at the second attempt, and captured; return all of it."""
    claim = await claimed(store)
    for number, outcome in ((1, Settled.REFUSED), (2, Settled.ACCEPTED)):
        sent = send(ID, number, document_sha256="d" * 64, template_version="v1")
        await store.begin_send(claim, sent)
        answer = "451 later" if outcome is Settled.REFUSED else "250 2.0.0 Ok: queued as 4Fk2Q"
        proof = Proof.RELAY if outcome is Settled.ACCEPTED else None
        settled = replace(sent, outcome=outcome, answer=answer, settled_at=AT, proof=proof)
        line = replace(entry(answer), result=Result(outcome.value), message_id=sent.message_id)
        await store.settle_send(settled, [line])
    captured = capture(ID)
    await store.begin_capture(claim, captured)
    done = replace(captured, outcome=Settled.ACCEPTED, event_id="e-7", settled_at=AT)
    await store.settle_capture(done, [Entry(at=AT, step=Step.CAPTURE, result=Result.ACCEPTED)], began_at=AT)
    closing = Entry(at=AT + timedelta(microseconds=17), step=Step.CLOSE, result=Result.ACCEPTED)
    await store.save(claim, replace(claim.delivery, **CLOSED), NEVER, [closing])
    return await store.dossier(ID)


def written(dossier: Dossier) -> str:
    return evidence(dossier, made_at=AT, program="merchant-delivery 1.2.3")


def wrong(text: str) -> list[str]:
    return [finding.words for finding in verify(text) if not finding.holds]


def digested(document: Any) -> str:
    """Return a document with a digest of its own, as a forger would make it."""
    bare = {name: value for name, value in document.items() if name != "digest"}
    canonical = json.dumps(bare, sort_keys=True, separators=(",", ":"))
    return json.dumps(bare | {"digest": hashlib.sha256(canonical.encode()).hexdigest()})


# --- the chain in the record -----------------------------------------------------------------------------------------


async def test_the_chain_is_what_the_file_says_that_it_is(store: SqlStore) -> None:
    """The arithmetic, done by hand as the file explains it."""
    document = json.loads(written(await delivered(store)))
    previous = ID
    for line in document["history"]:
        if line["detail"] is None:
            assert (line["salt"], line["detail_hash"]) == (None, None)
        else:
            assert len(line["salt"]) == 32
            words = hashlib.sha256(line["salt"].encode() + line["detail"].encode()).hexdigest()
            assert line["detail_hash"] == words
        fields = [line[name] for name in ("at", "step", "result", "channel", "detail_hash", "message_id")]
        array = json.dumps([previous, *fields], separators=(",", ":"))
        assert line["hash"] == hashlib.sha256(array.encode()).hexdigest()
        assert line["previous"] == previous
        previous = line["hash"]
    assert document["chain"]["last"] == previous
    assert [line["step"] for line in document["history"]] == ["receive", "deliver", "deliver", "capture", "close"]
    assert document["history"][-1]["at"] == "2026-11-22T10:00:00.000017+00:00"
    salts = [line["salt"] for line in document["history"] if line["salt"]]
    assert len(set(salts)) == len(salts) == 3
    canonical = json.dumps(
        {name: value for name, value in document.items() if name != "digest"}, sort_keys=True, separators=(",", ":")
    )
    assert document["digest"] == hashlib.sha256(canonical.encode()).hexdigest()


async def test_odd_words_are_hashed_as_they_are_kept(store: SqlStore) -> None:
    await store.receive(arrival())
    odd = Entry(
        at=AT,
        step=Step.DELIVER,
        result=Result.REFUSED,
        channel="ha\0lf",
        detail="zero \0, half \ud83d, grüß \N{SNOWMAN}",
        message_id="<m\ud800@x>",
    )
    await store.note(ID, odd)
    dossier = await store.dossier(ID)
    assert dossier.links[-1].entry.detail == "zero \ufffd, half \ufffd, grüß \N{SNOWMAN}"
    assert wrong(written(dossier)) == []


async def test_writes_of_one_group_follow_one_another(store: SqlStore) -> None:
    async with plugged(store):
        asked = [asyncio.ensure_future(store.receive(arrival()))]
        asked += [asyncio.ensure_future(store.retry(ID, request(f"reason {n}"))) for n in range(5)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
    await asyncio.gather(*asked)
    dossier = await store.dossier(ID)
    assert len(dossier.links) == 6
    assert wrong(written(dossier)) == []


async def test_two_processes_at_one_delivery_make_one_chain(database_url: str, clock: MovedClock) -> None:
    async with open_store(database_url, clock=clock) as one, open_store(database_url, clock=clock) as other:
        await one.receive(arrival())
        for turn in range(10):
            await asyncio.gather(*(store.note(ID, entry(f"{turn}")) for store in (one, other) for _ in range(3)))
        dossier = await one.dossier(ID)
    assert len(dossier.links) == 61
    assert wrong(written(dossier)) == []


async def test_a_new_delivery_costs_no_statement_more(store: SqlStore) -> None:
    """Insert the rows, the transactions and the history; the hash comes with the row."""
    said: list[str] = []
    event.listen(store._engines.writer, "before_cursor_execute", lambda _c, _cur, sql, *_: said.append(sql))
    async with plugged(store):
        asked = [asyncio.ensure_future(store.receive(arrival(n))) for n in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(*asked)
    assert [sql.split()[0] for sql in said].count("INSERT") == 3
    assert "UPDATE" not in {sql.split()[0] for sql in said}


async def test_a_dossier_is_of_one_moment(database_url: str, clock: MovedClock) -> None:
    async with open_store(database_url, clock=clock) as one, open_store(database_url, clock=clock) as other:
        await one.receive(arrival())

        async def write() -> None:
            for turn in range(60):
                await one.note(ID, entry(f"{turn}"))

        writing = asyncio.create_task(write())
        while not writing.done():
            assert wrong(written(await other.dossier(ID))) == []
        await writing


async def test_nobody_has_no_dossier(store: SqlStore) -> None:
    with pytest.raises(KeyError):
        await store.dossier("nobody")


# --- what the file says ----------------------------------------------------------------------------------------------


async def test_the_file_holds_what_a_dispute_is_about(store: SqlStore) -> None:
    document = json.loads(written(await delivered(store)))
    assert document["program"] == "merchant-delivery 1.2.3"
    assert document["made_at"] == moment(AT)
    assert document["delivery"]["transaction_id"] == ID
    (refused, accepted) = document["sends"]
    assert (refused["outcome"], refused["answer"]) == ("refused", "451 later")
    assert accepted["mail_sha256"] == "0" * 64
    assert accepted["document_sha256"] == "d" * 64
    assert accepted["template_version"] == "v1"
    assert accepted["answer"] == "250 2.0.0 Ok: queued as 4Fk2Q"
    assert (accepted["recipient"], accepted["recipient_key"]) == ("o***@nordmann.example", "k1")
    assert accepted["message_id"] == "<abc@merchant.example>"
    (captured,) = document["captures"]
    assert (captured["reference"], captured["event_id"], captured["amount"]) == (f"capture-{ID}", "e-7", 50000)
    words = document["delivered_rests_on"]
    assert "<abc@merchant.example>" in words
    assert "queued as 4Fk2Q" in words
    assert "o***@nordmann.example" in words


async def test_a_persons_word_is_named_as_such(store: SqlStore) -> None:
    await claimed(store)
    assert "not delivered" in json.loads(written(await store.dossier(ID)))["delivered_rests_on"]
    await store.resolve(ID, replace(request("they phoned"), rests_on="post, 2026-11-20"), delivered=True)
    await store.retry(ID, request("and now the capture"))
    words = json.loads(written(await store.dossier(ID)))["delivered_rests_on"]
    assert words.startswith("A person's word")
    assert "post, 2026-11-20" in words
    assert "they phoned" in words


@pytest.mark.parametrize(("proof", "begins"), [(Proof.REPORT, "A report of email"), (Proof.RELAY, "The word of")])
async def test_a_report_is_more_than_a_relays_word(store: SqlStore, proof: Proof, begins: str) -> None:
    dossier = await delivered(store)
    dossier = replace(dossier, delivery=replace(dossier.delivery, delivery_proof=proof))
    assert json.loads(written(dossier))["delivered_rests_on"].startswith(begins)


async def test_what_bounced_rests_on_nothing(store: SqlStore) -> None:
    dossier = await delivered(store)
    bounced = Report(channel="email", event_id="e1", reference="<abc@merchant.example>", fate=Fate.FAILED, at=AT)
    assert await store.report(dossier.delivery.account_id, bounced) is Reported.BOUNCED
    document = json.loads(written(await store.dossier(ID)))
    assert document["delivered_rests_on"].startswith("Nothing any more: the message <abc@merchant.example> by email")
    assert (document["delivery"]["progress"], document["delivery"]["delivered_at"]) == (["captured"], None)


async def test_lines_of_an_earlier_version_come_before_the_chain(store: SqlStore) -> None:
    await store.receive(arrival())
    with store._engines.writer.connect() as connection, connection.begin():
        connection.execute(update(history).values(salt=None, detail_hash=None, hash=None))
        connection.execute(update(deliveries).values(chain=None))
    early = await store.dossier(ID)
    assert wrong(written(early)) == []
    await store.note(ID, entry("new"))
    text = written(await store.dossier(ID))
    assert wrong(text) == []
    assert any("1 line without a hash" in finding.words for finding in verify(text))
    document = json.loads(text)
    assert document["history"][1]["previous"] == ID


async def test_a_record_that_was_altered_shows(store: SqlStore) -> None:
    await delivered(store)
    with store._engines.writer.connect() as connection, connection.begin():
        connection.execute(update(history).where(history.c.step == "close").values(result="refused"))
    assert any("Line 5" in words for words in wrong(written(await store.dossier(ID))))
    values = {"delivery_id": ID, "at": AT, "step": "deliver", "result": "accepted"}
    with store._engines.writer.connect() as connection, connection.begin():
        connection.execute(insert(history).values(values))
    assert any("does not end" in words for words in wrong(written(await store.dossier(ID))))


# --- what verify finds -----------------------------------------------------------------------------------------------


@pytest.fixture
async def document(sqlite_url: str, clock: MovedClock) -> Any:
    async with open_store(sqlite_url, clock=clock, migrate=False) as store:
        return json.loads(written(await delivered(store)))


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*place, key))
    else:
        yield place


async def test_whatever_is_changed_the_file_does_not_hold(document: Any) -> None:
    places = list(leaves(document))
    assert len(places) > 100
    for place in places:
        forged = deepcopy(document)
        *path, last = place
        inner = forged
        for key in path:
            inner = inner[key]
        inner[last] = "other"
        if place == ("format",):
            with pytest.raises(NotEvidence):
                verify(json.dumps(forged))
        else:
            assert wrong(json.dumps(forged)), place


@pytest.mark.parametrize("name", ["at", "step", "result", "channel", "message_id", "detail_hash", "hash", "previous"])
async def test_an_altered_line_is_named_though_the_digest_was_made_anew(document: Any, name: str) -> None:
    document["history"][2][name] = "2026-11-22T10:00:00.000000+00:00 "
    found = wrong(digested(document))
    assert any(words.startswith("Line 3 (") for words in found)
    assert not any(words.startswith(("Line 1", "Line 2", "Line 5")) for words in found)


Change = Callable[[list[Any]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[1].update(detail="250 ok"), "Line 2 (.*): its words were altered."),
        (lambda lines: lines[1].update(salt="0" * 32), "Line 2 (.*): its words were altered."),
        (lambda lines: lines.pop(2), "Line 3 (.*): it does not follow the line before it.*"),
        (lambda lines: lines.pop(0), "Line 1 (.*): it does not follow the line before it.*"),
        (lambda lines: lines.insert(3, dict(lines[1])), "Line 4 (.*): it does not follow the line before it.*"),
        (lambda lines: lines.reverse(), "Line 1 (.*): it does not follow the line before it.*"),
        (lambda lines: lines.pop(), "The history does not end as recorded.*"),
        (lambda lines: lines.clear(), "The history does not end as recorded.*"),
        (lambda lines: lines[3].update(hash=None, previous=None), "Line 4 (.*): it was altered.*"),
    ],
)
async def test_what_was_done_to_the_history_is_said(document: Any, change: Change, said: str) -> None:
    change(document["history"])
    found = wrong(digested(document))
    assert any(re.fullmatch(said, words) for words in found), found


async def test_a_send_that_the_history_does_not_know_is_named(document: Any) -> None:
    document["sends"][0].update(outcome="accepted", message_id="<other@merchant.example>")
    assert any("<other@merchant.example>" in words for words in wrong(digested(document)))


async def test_words_that_were_erased_leave_the_chain_whole(document: Any) -> None:
    for line in document["history"]:
        line.update(detail=None, salt=None)
    text = digested(document)
    assert wrong(text) == []
    assert any("3 lines were erased" in finding.words for finding in verify(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": "another"}',
        '{"format": "merchant-delivery evidence 1"}',
        '{"format": "merchant-delivery evidence 1", "format": "merchant-delivery evidence 1"}',
        '{"format": "merchant-delivery evidence 1", "half": "\\ud800"}',
        "[" * 100_000,
        "9" * 10_000,
    ],
)
def test_what_is_no_evidence_is_said_so(text: str) -> None:
    with pytest.raises(NotEvidence):
        verify(text)


async def test_a_name_that_stands_twice_is_refused(document: Any) -> None:
    text = json.dumps(document)
    with pytest.raises(NotEvidence):
        verify(text.replace('"amount":', '"amount": 1, "amount":', 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(data=st.data())
def test_a_hostile_file_is_answered_and_never_a_crash(data: st.DataObject) -> None:
    line = {"line": 1, "previous": "x", "at": "a", "step": "deliver", "detail": "d", "salt": "s", "detail_hash": "h"}
    forged: Any = {
        "format": "merchant-delivery evidence 1",
        "delivery": {"id": "x"},
        "history": [line | {"hash": "h"}, dict(line)],
        "chain": {"last": "h"},
        "sends": [{"outcome": "accepted"}],
    }
    *path, last = data.draw(st.sampled_from(list(leaves(forged))))
    inner = forged
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(json_values)
    try:
        findings = verify(digested(forged))
    except NotEvidence:
        return
    assert not all(finding.holds for finding in findings)


# --- end to end, and the commands ------------------------------------------------------------------------------------


async def test_the_digests_are_those_of_what_was_sent(tmp_path: Path) -> None:
    async with open_stage(f"sqlite:///{tmp_path}/d.db") as stage:
        transaction_id = stage.sell()
        await stage.settle()
        document = json.loads(written(await stage.app.store.dossier(transaction_id)))
        (sent,), (mail,) = document["sends"], stage.mail.inbox
        content = stage.provider.document(transaction_id)
        assert attachment(parsed(mail.content)) == content
        assert sent["document_sha256"] == hashlib.sha256(content).hexdigest()
        assert sent["mail_sha256"] == hashlib.sha256(mail.content).hexdigest()
        assert len(sent["template_version"]) == 32
        (captured,) = document["captures"]
        events = stage.provider.transaction(transaction_id)["events"]
        assert captured["event_id"] in {event["id"] for event in events}
        assert [line["hash"] for line in document["history"]].count(None) == 0
        assert wrong(json.dumps(document)) == []


def command(*arguments: str) -> Ran:
    return CliRunner().invoke(cli, list(arguments), prog_name="merchant-delivery")


@pytest.fixture
def recorded(sqlite_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    async def enter() -> None:
        async with open_store(sqlite_url, clock=MovedClock()) as store:
            await delivered(store)

    asyncio.run(enter())
    monkeypatch.setenv("DELIVERY_DATABASE_URL", sqlite_url)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_file_is_written_and_verified_without_anything_else(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = command("deliveries", "evidence", ID, "--out", "case.json")
    assert (made.exit_code, made.stdout) == (0, ""), made.stderr
    file = recorded / "case.json"
    document = json.loads(file.read_text())
    assert document["digest"] in made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.setenv("DELIVERY_DATABASE_URL", "nonsense")
    held = command("evidence", "verify", "case.json")
    assert held.exit_code == 0
    assert "WRONG" not in held.stdout
    assert document["digest"] in held.stdout
    document["history"][1]["detail"] = "250 delivered"
    file.write_text(digested(document))
    touched = command("evidence", "verify", "case.json")
    assert touched.exit_code == 1
    assert "WRONG  Line 2 (" in touched.stdout
    assert sorted(path.name for path in recorded.iterdir()) == ["case.json"]


def test_without_a_file_it_is_shown(recorded: Path) -> None:
    made = command("deliveries", "evidence", ID)
    assert made.exit_code == 0
    assert wrong(made.stdout) == []
    assert list(recorded.iterdir()) == []


def test_what_cannot_be_written_read_or_found_is_said(recorded: Path) -> None:
    for arguments, status in (
        (("deliveries", "evidence", "T99"), 1),
        (("deliveries", "evidence", ID, "--out", "missing/case.json"), 1),
        (("evidence", "verify", "missing.json"), 2),
    ):
        result = command(*arguments)
        assert (result.exit_code, result.stdout) == (status, ""), arguments
        assert result.stderr
    (recorded / "other.json").write_bytes(b"\xff{}")
    assert command("evidence", "verify", "other.json").exit_code == 1


async def test_a_record_that_does_not_hold_is_exit_1(recorded: Path, sqlite_url: str) -> None:
    async with open_store(sqlite_url, clock=MovedClock()) as store:
        with store._engines.writer.connect() as connection, connection.begin():
            connection.execute(update(history).where(history.c.step == "close").values(result="refused"))
    result = await asyncio.to_thread(command, "deliveries", "evidence", ID)
    assert result.exit_code == 1
    assert "Line 5" in result.stderr
    assert json.loads(result.stdout)["history"]
