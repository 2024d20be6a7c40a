"""A batch of invoices: read whole before anything is sent, never invoiced twice, and gone on with where it stopped."""

import asyncio
import csv
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from service.batch import read_batch
from service.batching import Batch, unchanged
from service.delivery import ChannelDefault
from service.dintero.client import open_dintero
from service.dintero.creating import CREATE_TIMEOUT, Creating
from service.ordering import Mistaken
from service.results import Entry, State, Unusable, known, open_results
from tests.creation_peer import Peer, open_peer
from tests.fakes import MovedClock
from tests.orders import HEAD, PUBLIC, batch, line
from tests.outside import kill, until
from tests.processes import command, running


def read(text: str) -> list[str]:
    with pytest.raises(Mistaken) as found:
        read_batch(text, public_url=(PUBLIC,))
    return list(found.value.mistakes)


def test_rows_are_read_in_order_whatever_separates_them() -> None:
    text = batch("a", "b")
    for written in (text, "\ufeff" + text, text.replace(",", ";"), text.replace("\n", "\r\n"), text + "\n ,\n"[:1]):
        rows = read_batch(written, public_url=(PUBLIC,))
        assert [(row.line, row.creation.reference, row.creation.amount) for row in rows] == [
            (2, "a", 29900),
            (3, "b", 29900),
        ]


def test_every_mistake_of_every_line_is_told_by_column() -> None:
    lines = [line("a", "299.00"), line("b", "29900 "), line("b"), line("", "1e3"), "x,y"]
    assert read("\n".join((HEAD, *lines))) == [
        "line 2: amount_minor: is no whole number; money is in minor units, 29900 for 299.00",
        "line 4: merchant_reference: is that of line 3, too",
        "line 5: amount_minor: is no whole number; money is in minor units, 29900 for 299.00",
        "line 5: merchant_reference: is missing",
        "line 6: has 2 cells, and the head has 16",
    ]


def test_a_head_that_will_not_do() -> None:
    head = HEAD.replace("currency", "curency").replace("vat,", "product,")
    assert read(head + "\n") == [
        "the head: currency is missing",
        "the head: curency is unknown",
        "the head: product is there twice",
    ]
    assert read(HEAD) == ["the file: has no line below its head"]
    assert read("") != []


@asynccontextmanager
async def working(
    peer: Peer, path: Path, text: str, *, retry_failed: bool = False, two_step: bool = False
) -> AsyncIterator[Batch]:
    assert peer.loopback is not None
    clock = MovedClock()
    url = f"{peer.loopback.url}/v1"
    opened = open_dintero(
        account_id="T12345678",
        client_id="client",
        client_secret="secret",
        checkout_url=url,
        api_url=url,
        file_hosts=(),
        max_pdf_bytes=1,
        invoice_channel=ChannelDefault(),
        clock=clock,
        version="1",
    )
    rows = read_batch(text, public_url=(PUBLIC,), two_step=two_step)
    async with opened as dintero:
        with open_results(path) as results:
            unchanged(rows, results.of)
            yield Batch(
                rows=rows,
                results=results,
                invoices=dintero.creating,
                clock=clock,
                settled=CREATE_TIMEOUT,
                retry_failed=retry_failed,
            )


async def run(
    peer: Peer, path: Path, text: str, *, retry_failed: bool = False, two_step: bool = False
) -> dict[str, str]:
    """Run a batch to its end; return the states by reference."""
    told: list[Entry] = []
    async with working(peer, path, text, retry_failed=retry_failed, two_step=two_step) as batch:
        await batch.run(told.append)
        batch.results.tidy([row.creation.reference for row in batch.rows])
    found = known(path)
    assert {entry.merchant_reference: entry for entry in told}.items() <= found.items()
    return {reference: entry.state.value for reference, entry in found.items()}


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with open_peer() as opened:
        yield opened


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return tmp_path / "batch.result.csv"


async def test_a_second_run_sends_nothing(peer: Peer, result: Path) -> None:
    assert await run(peer, result, batch("a", "b")) == {"a": "created", "b": "created"}
    assert {seen.headers["dintero-feature-toggles"] for seen in peer.posts()} == {"strict-merchant-reference"}
    assert await run(peer, result, batch("a", "b", "c")) == {"a": "created", "b": "created", "c": "created"}
    assert peer.created() == ["a", "b", "c"]
    assert len(peer.posts()) == 3
    with result.open() as file:
        assert [row["merchant_reference"] for row in csv.DictReader(file)] == ["a", "b", "c"]


async def test_without_its_result_file_what_is_there_is_found_and_not_made_anew(peer: Peer, result: Path) -> None:
    await run(peer, result, batch("a", "b"))
    remove(result)
    assert await run(peer, result, batch("a", "b")) == {"a": "existed", "b": "existed"}
    assert peer.created() == ["a", "b"]


async def test_a_reference_that_another_invoice_has_is_a_failure(peer: Peer, result: Path) -> None:
    await run(peer, result, batch("a"))
    remove(result)
    text = f"{HEAD}\n{line('a', '100')}\n"
    assert await run(peer, result, text) == {"a": "failed"}
    assert "another amount" in known(result)["a"].reason
    assert await run(peer, result, text, retry_failed=True) == {"a": "failed"}
    assert peer.created() == ["a"]


@pytest.mark.parametrize("answer", ["lost", 500, 503, "ignored"])
async def test_a_lost_answer_is_looked_up_and_never_asked_for_again(
    peer: Peer, result: Path, answer: str | int
) -> None:
    peer.trouble["a"] = answer
    took_effect = answer == "lost"
    expected = {"a": "created" if took_effect else "unconfirmed", "b": "created"}
    for _ in range(2):
        assert await run(peer, result, batch("a", "b")) == expected
    assert peer.created() == (["a", "b"] if took_effect else ["b"])
    assert len(peer.posts()) == 2


async def test_what_is_found_later_is_settled_later(peer: Peer, result: Path) -> None:
    peer.trouble["a"] = "lost"
    peer.blind = True
    assert await run(peer, result, batch("a")) == {"a": "unconfirmed"}
    peer.blind = False
    assert await run(peer, result, batch("a")) == {"a": "created"}
    assert len(peer.posts()) == 1


@pytest.mark.parametrize("answer", ["declined", 400])
async def test_a_failure_is_tried_again_only_when_asked(peer: Peer, result: Path, answer: str | int) -> None:
    peer.trouble["a"] = answer
    for _ in range(2):
        assert await run(peer, result, batch("a")) == {"a": "failed"}
    assert "kari@" not in text_of(result)
    assert len(peer.posts()) == 1
    peer.trouble["a"] = "lost"
    assert await run(peer, result, batch("a"), retry_failed=True) == {"a": "created"}
    assert peer.posts()[-1].headers["dintero-feature-toggles"] == "strict-success-merchant-reference"
    assert peer.created() == ["a"]


async def test_a_refused_client_stops_the_batch_and_nothing_is_in_doubt(peer: Peer, result: Path) -> None:
    peer.trouble["b"] = 403
    assert await run(peer, result, batch("a", "b", "c")) == {"a": "created", "b": "not_sent"}
    assert await run(peer, result, batch("a", "b", "c")) == {"a": "created", "b": "created", "c": "created"}


async def test_a_line_that_was_sent_may_not_change(peer: Peer, result: Path) -> None:
    await run(peer, result, batch("a"))
    with pytest.raises(Mistaken, match="line 2: was sent before"):
        await run(peer, result, f"{HEAD}\n{line('a', '1')}\n")


async def test_two_runs_at_once_are_refused(peer: Peer, result: Path) -> None:
    async with working(peer, result, batch("a")):
        with pytest.raises(Unusable, match="in use"):
            await run(peer, result, batch("a"))


@pytest.mark.parametrize("cut", range(1, 60, 7))
async def test_a_line_cut_short_by_a_crash_is_dropped(peer: Peer, result: Path, cut: int) -> None:
    async with working(peer, result, batch("a", "b")) as opened:
        await opened.run(lambda _: None)
    assert len(text_of(result).splitlines()) == 5  # the head, and two for each
    shorten(result, cut)
    assert await run(peer, result, batch("a", "b")) == {"a": "created", "b": "created"}
    assert peer.created() == ["a", "b"]


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    for content in ("name,address\nKari,Strandgaten\n", "notes"):
        path.write_text(content)
        with pytest.raises(Unusable, match="no result file"), open_results(path):
            pass
        assert path.read_text() == content


@pytest.mark.parametrize("effect", ["hangs", "ignored while held"])
async def test_killed_in_the_middle_and_run_again_each_is_there_once(
    peer: Peer, result: Path, tmp_path: Path, effect: str
) -> None:
    """The kill strikes while one is on its way: once it took effect and once it did not."""
    names = [f"inv-{number}" for number in range(8)]
    file = tmp_path / "batch.csv"
    file.write_text(batch(*names))
    if effect == "hangs":
        peer.trouble[names[3]] = "hangs"
    arguments = ("invoices", "create", str(file), "--yes", "--result", str(result))
    async with running(*arguments, settings=peer.settings, cwd=tmp_path) as started:
        if effect == "hangs":
            await until(lambda: len(peer.created()) == 4)
        else:
            peer.delay = 0.3
            await until(lambda: len(peer.posts()) >= 3)
        await kill(started)
    peer.delay = 0
    await asyncio.sleep(0.5)
    states = [entry.state for entry in known(result).values()]
    assert State.SENDING in states
    _a_minute_passes(result)
    status, _, err = await command(*arguments, settings=peer.settings, cwd=tmp_path)
    assert status == 0, err
    assert sorted(peer.created()) == names
    assert [entry.state for entry in known(result).values()] == [State.CREATED] * len(names)


def remove(result: Path) -> None:
    result.unlink()


def text_of(result: Path) -> str:
    return result.read_text()


def shorten(result: Path, cut: int) -> None:
    result.write_bytes(result.read_bytes()[:-cut])


def _a_minute_passes(result: Path) -> None:
    earlier = (datetime.fromisoformat("2026-01-01T00:00:00+00:00") - timedelta(minutes=2)).isoformat()
    text = result.read_text()
    result.write_text(re.sub(r"\d{4}-\d\d-\d\dT[0-9:.]+\+00:00", earlier, text))


@pytest.mark.parametrize("ahead", [0, 600])
async def test_what_may_still_be_on_its_way_is_waited_for(peer: Peer, result: Path, ahead: int) -> None:
    """Also when the clock went back since it was begun, and then not for ever."""
    async with working(peer, result, batch("a")) as opened:
        row = opened.rows[0]
        begun = Entry(
            merchant_reference="a",
            state=State.SENDING,
            amount_minor=29900,
            currency="NOK",
            at=opened.clock.now() + timedelta(seconds=ahead),
            digest=row.digest,
        )
        opened.results.write(begun)
        before = opened.clock.now()
        await opened.run(lambda _: None)
        assert CREATE_TIMEOUT <= (opened.clock.now() - before).total_seconds() < CREATE_TIMEOUT + 60
    assert known(result)["a"].state is State.CREATED


@pytest.mark.parametrize("lax", [False, True])
async def test_two_steps_look_first_and_create_once(peer: Peer, result: Path, *, lax: bool) -> None:
    peer.lax = lax
    assert await run(peer, result, batch("a"), two_step=True) == {"a": "created"}
    assert [seen.headers["dintero-feature-toggles"] for seen in peer.posts()] == ["strict-merchant-reference"]
    remove(result)
    assert await run(peer, result, batch("a"), two_step=True) == {"a": "existed"}
    assert (peer.created(), len(peer.sessions)) == (["a"], 1)


async def test_two_steps_without_a_look_create_nothing(peer: Peer, result: Path) -> None:
    peer.unlisted = True
    assert await run(peer, result, batch("a"), two_step=True) == {"a": "not_sent"}
    assert peer.sessions == []
    peer.unlisted = False
    assert await run(peer, result, batch("a"), two_step=True) == {"a": "created"}


async def test_a_session_whose_answer_was_lost_does_not_take_the_reference(peer: Peer, result: Path) -> None:
    peer.trouble["session a"] = "lost"
    assert await run(peer, result, batch("a"), two_step=True) == {"a": "not_sent"}
    assert known(result)["a"].reason.endswith(": the connection was closed before the answer")
    assert await run(peer, result, batch("a"), two_step=True) == {"a": "created"}
    assert (peer.created(), len(peer.sessions)) == (["a"], 2)


@pytest.mark.parametrize("hanging", ["session a", "a"])
async def test_both_steps_are_in_one_bound(peer: Peer, result: Path, hanging: str) -> None:
    peer.trouble[hanging] = "hangs"
    async with working(peer, result, batch("a"), two_step=True) as opened:
        assert isinstance(opened.invoices, Creating)
        opened.invoices._bound = 0.5  # real seconds: no clock of ours moves them
        await opened.run(lambda _: None)
    assert known(result)["a"].state is (State.NOT_SENT if hanging == "session a" else State.CREATED)


@pytest.mark.parametrize("two_step", [False, True])
async def test_a_voided_transaction_keeps_its_reference(peer: Peer, result: Path, *, two_step: bool) -> None:
    peer.lax = True
    await run(peer, result, batch("a"))
    peer.transactions[0]["status"] = "AUTHORIZATION_VOIDED"
    remove(result)
    for retry_failed in (False, True):
        again = await run(peer, result, batch("a"), two_step=two_step, retry_failed=retry_failed)
        assert again == {"a": "failed"}
        assert known(result)["a"].reason == "the merchant reference is a voided transaction's; use another"
    assert len(peer.transactions) == 1


async def test_an_outage_ends_the_run_and_leaves_the_rest_unsent(peer: Peer, result: Path) -> None:
    references = ["a", "b", "c", "d", "e"]
    peer.trouble = dict.fromkeys(references, 503)
    assert await run(peer, result, batch(*references)) == {"a": "unconfirmed", "b": "unconfirmed"}
    peer.trouble.clear()
    # Those two are looked up, and never sent again; the rest is.
    again = await run(peer, result, batch(*references))
    assert [again[one] for one in references] == ["unconfirmed", "unconfirmed", "created", "created", "created"]
    assert (peer.created(), len(peer.posts())) == (["c", "d", "e"], 5)
