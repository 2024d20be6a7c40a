"""The process is killed at every seam of a delivery, and the next one settles what it left."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2 as httpx
import pytest

from service.delivery import CaptureOrder, Delivery, Outcome, Settled
from service.simulator.deeds import NEVER, Answer, Behaviour, How, Phase
from service.simulator.faults import Fault, Kind
from tests.outside import HELD, Outside, address, an_hour_passes, kill, open_outside, record, until

OPEN, ACCEPTED, REFUSED, UNCONFIRMED = Settled.OPEN, Settled.ACCEPTED, Settled.REFUSED, Settled.UNCONFIRMED
SILENCE, SILENCE_AFTER = Answer(lost="silence"), Answer(lost="silence", after=True)
ANSWERED = Answer(after=True, body="usual", delay=HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seam:
    """Where a delivery is when the process dies: what the outside world does to keep it there, and what comes of it.

    `stage` says what its next commit is about. `left` are its sends in the record then, `sends` those in the end.
    """

    name: str
    at: str
    how: How
    stage: Literal["early", "mail", "capture"]
    left: tuple[Settled, ...] = ()
    sends: tuple[Settled, ...] = (ACCEPTED,)
    copies: int = 1
    captures: tuple[Settled, ...] = (ACCEPTED,)
    begun: bool = False  # the capture has taken effect, and we do not know it
    once_mailed: bool = False  # it is kept there only after its mail arrived


def mailing(name: str, at: str, how: How = Behaviour(delay=NEVER), *, copies: int = 1) -> Seam:  # noqa: B008 - frozen
    """Return a seam between a send's intent and its outcome: whether it got out is in doubt, so it is repeated."""
    return Seam(name=name, at=at, how=how, stage="mail", left=(OPEN,), sends=(UNCONFIRMED, ACCEPTED), copies=copies)


# The connections' own come first, while no connection is kept.
SEAMS = (
    mailing("intent committed", Phase.CONNECT),
    mailing("greeted", Phase.EHLO),
    mailing("signed in", Phase.AUTH),
    mailing("sender named", Phase.MAIL),
    mailing("recipient named", Phase.RCPT),
    mailing("data announced", Phase.DATA),
    mailing("content given", Phase.CONTENT),
    mailing("content taken", Phase.CONTENT, Behaviour(delay=NEVER, keep=True), copies=2),
    mailing("taken twice", Phase.CONTENT, Behaviour(delay=NEVER, keep=True), copies=2),
    mailing("accepted", Phase.CONTENT, Behaviour(delay=HELD), copies=2),
    Seam(name="claimed", at="read_transaction", how=SILENCE, stage="early"),
    Seam(name="document asked for", at="cdn", how=SILENCE, stage="early"),
    Seam(name="document fetched", at="cdn", how=ANSWERED, stage="early"),
    Seam(
        name="outcome committed",
        at="read_transaction",
        how=SILENCE,
        stage="mail",
        left=(ACCEPTED,),
        once_mailed=True,
    ),
    Seam(
        name="postponed",
        at=Phase.RCPT,
        how=Behaviour(reply="451 4.7.1 Greylisted, please try again in 300 seconds"),
        stage="mail",
        left=(REFUSED,),
        sends=(REFUSED, ACCEPTED),
    ),
    Seam(name="capture asked for", at="capture", how=SILENCE, stage="capture", captures=(REFUSED, ACCEPTED)),
    Seam(name="captured", at="capture", how=SILENCE_AFTER, stage="capture", begun=True),
    Seam(name="capture answered", at="capture", how=ANSWERED, stage="capture", begun=True),
)
TWICE = "taken twice"


# --- stopping between two commits -------------------------------------------------------------------------------------

Statements = Mapping[str, tuple[str, ...]]

_UNCLAIMED: Statements = {
    "sqlite": (
        """CREATE TRIGGER unclaimed BEFORE UPDATE OF lease_token ON deliveries
            WHEN NEW.id = '{id}' BEGIN SELECT RAISE(IGNORE); END""",
    ),
    "postgresql": (
        "CREATE FUNCTION unclaimed() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        """CREATE TRIGGER unclaimed BEFORE UPDATE OF lease_token ON deliveries
            FOR EACH ROW WHEN (NEW.id = '{id}') EXECUTE FUNCTION unclaimed()""",
    ),
}
_STUCK: Statements = {
    "sqlite": (
        """CREATE VIEW ages AS
            WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 1000000000) SELECT i FROM n""",
        """CREATE TRIGGER stuck BEFORE UPDATE OF outcome ON deliveries
            WHEN NEW.id = '{id}' AND NEW.outcome = 'completed' BEGIN SELECT count(*) FROM ages; END""",
    ),
    "postgresql": (
        "CREATE FUNCTION stuck() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(12); RETURN NEW; END'",
        """CREATE TRIGGER stuck BEFORE UPDATE OF outcome ON deliveries
            FOR EACH ROW WHEN (NEW.id = '{id}' AND NEW.outcome = 'completed') EXECUTE FUNCTION stuck()""",
    ),
}
_FREED: Statements = {
    "sqlite": ("DROP TRIGGER IF EXISTS {name}",),
    "postgresql": (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
        "DROP TRIGGER IF EXISTS {name} ON deliveries",
        "DROP FUNCTION IF EXISTS {name}",
    ),
}


def stop(outside: Outside, statements: Statements, **words: str) -> None:
    """Have the database itself keep a delivery from its next commit, or let it go."""
    with record(outside.database_url) as execute:
        for statement in statements[outside.database_url.partition(":")[0]]:
            execute(statement.format(**words))


@contextmanager
def freed_in_the_end(outside: Outside) -> Iterator[None]:
    try:
        yield
    finally:
        free(outside)


def free(outside: Outside) -> None:
    for name in ("unclaimed", "stuck"):
        stop(outside, _FREED, name=name)


def is_stuck(outside: Outside) -> bool:
    """Tell whether the process is in the midst of a commit that does not end."""
    if outside.database_url.startswith("postgresql"):
        with record(outside.database_url) as execute:
            return bool(execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchall())
    connection = sqlite3.connect(outside.database_url.removeprefix("sqlite:///"), timeout=0.5, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False


# --- getting there ----------------------------------------------------------------------------------------------------


async def reach(outside: Outside, seam: Seam) -> str:
    """Bring a delivery to a seam; return its id."""
    id_ = await outside.keep(seam.name, seam.at, seam.how, once_mailed=seam.once_mailed)
    while seam.left == (REFUSED,) and not await is_postponed(outside, id_):
        await asyncio.sleep(0.01)
    return id_


async def is_postponed(outside: Outside, id_: str) -> bool:
    delivery = await outside.delivery(id_)
    return delivery is not None and delivery.postponed > 0


async def call_again(outside: Outside, id_: str) -> None:
    """Have the provider call once more, and wait until the process has looked: it may not send before it is time."""
    path = f"/v1/transactions/{id_}"
    reads = sum(seen.path == path for seen in outside.provider.requests)
    call = next(attempt for attempt in outside.running.caller.attempts if f"transaction_id={id_}&" in attempt.url)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.request(call.method, call.url, headers=call.headers)).status_code == 200
    await until(lambda: sum(seen.path == path for seen in outside.provider.requests) > reads)
    while (await known(outside, id_)).claims:  # it is in hand
        await asyncio.sleep(0.01)


async def known(outside: Outside, id_: str) -> Delivery:
    delivery = await outside.delivery(id_)
    assert delivery is not None
    return delivery


async def left(outside: Outside, id_: str) -> tuple[tuple[Settled, ...], tuple[Settled, ...]]:
    """Return how a delivery's sends and captures stand in the record."""
    sends, captures = await outside.store.sends(id_), await outside.store.captures(id_)
    return tuple(send.outcome for send in sends), tuple(capture.outcome for capture in captures)


def expected_left(seam: Seam, order: CaptureOrder) -> tuple[tuple[Settled, ...], tuple[Settled, ...]]:
    """Return what the record holds of a delivery at a seam: the other effect has come before it, or comes after."""
    after = order is CaptureOrder.AFTER_DELIVERY
    if seam.stage == "capture":
        return (ACCEPTED,) if after else (), (OPEN,)
    return seam.left, () if after or seam.stage == "early" else (ACCEPTED,)


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", CaptureOrder)
async def test_killed_at_every_seam(database_url: str, tmp_path: Path, order: CaptureOrder) -> None:
    settings: dict[str, Any] = {"CAPTURE_ORDER": order.value, "CONCURRENCY": "32", "MAX_PDF_BYTES": "500000"}
    async with open_outside(database_url, tmp_path, **settings) as outside:
        with freed_in_the_end(outside):
            async with outside.serving() as service:
                ids = {seam.name: await reach(outside, seam) for seam in SEAMS}
                await call_again(outside, ids["postponed"])
                ids["unclaimed"] = outside.sell("unclaimed")
                stop(outside, _UNCLAIMED, id=ids["unclaimed"])
                await until(lambda: outside.told(ids["unclaimed"]) == [200])
                ids["last save"] = outside.sell("last save")
                stop(outside, _STUCK, id=ids["last save"])
                done = ((ACCEPTED,), (ACCEPTED,))
                while await left(outside, ids["last save"]) != done or not await asyncio.to_thread(is_stuck, outside):
                    await asyncio.sleep(0.01)
                # Nothing is committed any more: what is answered now is never recorded.
                outside.gate.open()
                ids["callback"] = outside.sell("callback")
                await asyncio.sleep(0.3)  # for nothing that matters: the commits that the answers led to cannot come
                await kill(service)
            free(outside)
            outside.faults.clear()
            await as_left(outside, ids, order)
            after = order is CaptureOrder.AFTER_DELIVERY
            await recover(outside, ids, dies=after)
            await outside.judge(after_delivery=after)
            await as_promised(outside, ids, died=after)


async def as_left(outside: Outside, ids: dict[str, str], order: CaptureOrder) -> None:
    """Check that the process died where it was to die."""
    for seam in SEAMS:
        assert await left(outside, ids[seam.name]) == expected_left(seam, order), seam.name
        begun = (await known(outside, ids[seam.name])).captured_at is None and outside.provider.begun(ids[seam.name])
        assert begun is seam.begun, seam.name
    assert await left(outside, ids["unclaimed"]) == ((), ())
    assert (await known(outside, ids["unclaimed"])).claims == 0
    assert await left(outside, ids["last save"]) == ((ACCEPTED,), (ACCEPTED,))
    assert (await known(outside, ids["last save"])).outcome is Outcome.OPEN
    assert await outside.delivery(ids["callback"]) is None
    assert outside.told(ids["callback"])[:1] in ([], [None])
    assert len(outside.copies("accepted")) == 1


async def recover(outside: Outside, ids: dict[str, str], *, dies: bool) -> None:
    """Start another process, and one more when it `dies` of the repeat of a send in doubt, too."""
    others = [id_ for name, id_ in ids.items() if name != TWICE]
    await asyncio.to_thread(an_hour_passes, outside.database_url, others)
    async with outside.serving() as service:
        await outside.settled(others)
        again = next(seam for seam in SEAMS if seam.name == TWICE)
        if dies:
            kind = Kind(about=TWICE, at=(again.at,), how=again.how)
            outside.faults.commit(Fault(name="again", count=1, where=address(TWICE)), kind)
        await asyncio.to_thread(an_hour_passes, outside.database_url, [ids[TWICE]])
        if not dies:
            await outside.settled()
            return
        await until(lambda: outside.faults.struck["again"])
        await kill(service)
    await asyncio.to_thread(an_hour_passes, outside.database_url, [ids[TWICE]])
    async with outside.serving():
        await outside.settled()


async def as_promised(outside: Outside, ids: dict[str, str], *, died: bool) -> None:
    """Check what became of each: exactly so many copies and captures as its seam explains."""
    failed = [TWICE] if died else []
    for seam in SEAMS:
        if seam.name not in failed:
            assert await left(outside, ids[seam.name]) == (seam.sends, seam.captures), seam.name
    for name in ("unclaimed", "last save", "callback"):
        assert await left(outside, ids[name]) == ((ACCEPTED,), (ACCEPTED,)), name
    copies = {seam.name: seam.copies for seam in SEAMS}
    for name, id_ in ids.items():
        came = outside.copies(name)
        assert len(came) == copies.get(name, 1), name
        assert len({mail.content for mail in came}) == 1, name
        assert (await known(outside, id_)).outcome is (Outcome.FAILED if name in failed else Outcome.COMPLETED), name
    captured = Counter(seen.transaction_id for seen in outside.provider.captures_asked)  # and none was refused
    assert captured == {id_: 1 for name, id_ in ids.items() if name not in failed}
    assert [status for status in outside.told(ids["callback"]) if status] == [200]
    if died:
        assert await left(outside, ids[TWICE]) == ((UNCONFIRMED, UNCONFIRMED), ())
        assert "deliveries resolve" in ((await known(outside, ids[TWICE])).reason or "")
