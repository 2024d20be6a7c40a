"""Links to invoice pages: one for a document however often it is asked for, how long it lasts, and what is left."""

import asyncio
import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import insert

from service.chores import Chore, Chores
from service.delivery import (
    Delivery,
    Entry,
    KeptLink,
    Outcome,
    PermanentFailure,
    Request,
    Result,
    Schedule,
    Step,
    TransientFailure,
    Vault,
    Visit,
)
from service.links import EVERY, ORPHAN_AFTER, SHORTEST, InvoiceLinks, closing, hash_of
from service.metrics import Metrics
from service.sealing import KEY_BYTES, Seal
from service.store import SqlStore, open_store
from service.store.tables import links as table
from service.vault import DatabaseVault, FolderVault
from tests.fakes import ACCOUNT, PDF, MovedClock, a_transaction
from tests.store_values import AT, CLOSED, NEVER, claimed, only
from tests.test_process import stored

KEY = bytes(range(KEY_BYTES))
TRANSACTION = a_transaction(
    f"{ACCOUNT}.1", invoice_date=date(2026, 11, 1), due_date=date(2026, 11, 15), payment_reference="0012345678903"
)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BrokenVault(DatabaseVault):
    """Keeps nothing: every attempt ends as it would in a crash."""

    async def put(self, name: str, sealed: bytes) -> None:
        raise TransientFailure("no room")


@dataclass(frozen=True, slots=True)
class ForgetfulVault(DatabaseVault):
    """Takes what it is given, and has nothing when it is asked."""

    async def get(self, name: str) -> bytes | None:
        return None


def made(store: SqlStore, clock: MovedClock, *, vault: Vault | None = None, **changed: Any) -> InvoiceLinks:
    values: dict[str, Any] = {
        "seal": Seal(key=KEY),
        "public_url": "https://faktura.butikken.example",
        "days": 60,
        "timezone": ZoneInfo("Europe/Oslo"),
    }
    return InvoiceLinks(store=store, vault=vault or DatabaseVault(store=store), clock=clock, **(values | changed))


async def closed(store: SqlStore, number: int | str = 1, **changed: Any) -> Delivery:
    claim = await claimed(store, number)
    await store.save(claim, replace(claim.delivery, **(CLOSED | changed)), NEVER)
    return await only(store, number)


@dataclass(frozen=True, slots=True)
class Ground:
    store: SqlStore
    clock: MovedClock
    links: InvoiceLinks
    delivery: Delivery

    async def link(self, document: bytes = PDF, **changed: Any) -> str:
        """Return the token of the link to a document."""
        transaction = replace(TRANSACTION, **changed)
        url = await self.links.link(self.delivery, transaction, document, locale="nb")
        before, _, token = url.rpartition("/")
        assert before == "https://faktura.butikken.example/i"
        return token

    async def look(self, token: str) -> Visit:
        visit = await self.links.look(token)
        assert visit is not None
        return visit

    async def rows(self) -> tuple[KeptLink, ...]:
        return await self.store.links_of(self.delivery.id)

    async def documents(self) -> tuple[str, ...]:
        return await self.links.vault.names(ACCOUNT)

    async def tidy(self) -> None:
        """Do the chore as a worker would, once its time has come."""
        chore = Chore(name="links", every=EVERY, run=closing(self.store, self.links.vault, account_id=ACCOUNT))
        chores = Chores(
            (chore,), store=self.store, clock=self.clock, metrics=Metrics(), account_id=ACCOUNT, stop_grace=1
        )
        self.clock.advance(EVERY + 1)
        assert await chores.look() == ("links",)


@pytest.fixture
async def ground(store: SqlStore, clock: MovedClock) -> Ground:
    return Ground(store, clock, made(store, clock), await closed(store))


# --- a link ----------------------------------------------------------------------------------------------------------


async def test_a_link_is_short_and_leads_to_the_document(ground: Ground) -> None:
    token = await ground.link()
    assert len(token) == 22
    visit = await ground.look(token)
    page = visit.page
    assert page is not None
    assert (page.delivery_id, page.locale) == (ground.delivery.id, "nb")
    assert (page.invoice_number, page.amount, page.currency) == ("A1B2C-000001", 50000, "NOK")
    assert (page.invoice_date, page.due_date) == (date(2026, 11, 1), date(2026, 11, 15))
    assert (page.payment_reference, page.merchant_reference) == ("0012345678903", "order-123")
    assert await ground.links.document(visit, opened=False) == PDF


async def test_a_repeat_gets_the_very_same_link_also_after_a_restart(ground: Ground, database_url: str) -> None:
    token = await ground.link()
    async with open_store(database_url, clock=ground.clock) as other:
        again = await made(other, ground.clock).link(ground.delivery, TRANSACTION, PDF, locale="nb")
    assert again.endswith(token)
    assert (len(await ground.rows()), len(await ground.documents())) == (1, 1)


async def test_another_document_gets_a_link_of_its_own(ground: Ground) -> None:
    one, other = await ground.link(), await ground.link(PDF + b"2")
    assert one != other
    assert await ground.links.document(await ground.look(one), opened=False) == PDF
    assert await ground.links.document(await ground.look(other), opened=False) == PDF + b"2"


async def test_replicas_that_race_agree_on_one_link(ground: Ground, database_url: str) -> None:
    async with (
        open_store(database_url, clock=ground.clock) as second,
        open_store(database_url, clock=ground.clock) as third,
    ):
        replicas = [ground.links, made(second, ground.clock), made(third, ground.clock)] * 3
        urls = await asyncio.gather(*(r.link(ground.delivery, TRANSACTION, PDF, locale="nb") for r in replicas))
    assert len(set(urls)) == 1
    assert len(await ground.rows()) == 1
    (name,) = await ground.documents()  # and nobody left another behind
    assert name == (await ground.rows())[0].document_name


async def test_nothing_in_the_record_tells_the_token_or_what_is_behind_it(ground: Ground, database_url: str) -> None:
    token = await ground.link()
    everything = stored(database_url)
    assert hash_of(token) in everything
    for secret in (token, "a document", "0012345678903", "order-123"):
        assert secret not in everything, secret
    assert token not in repr(await ground.rows())
    assert hash_of(token) == hashlib.sha256(token.encode()).hexdigest()


async def test_a_document_that_was_lost_is_put_back_by_a_repeat(ground: Ground) -> None:
    token = await ground.link()
    (name,) = await ground.documents()
    await ground.links.vault.delete(name)
    assert await ground.links.document(await ground.look(token), opened=True) is None
    assert await ground.link() == token
    assert await ground.links.document(await ground.look(token), opened=True) == PDF


async def test_a_document_that_cannot_be_kept_leaves_no_link(ground: Ground) -> None:
    links = made(ground.store, ground.clock, vault=BrokenVault(store=ground.store))
    with pytest.raises(TransientFailure):
        await links.link(ground.delivery, TRANSACTION, PDF, locale="nb")
    assert await ground.rows() == ()


async def test_a_place_that_gives_back_nothing_is_no_place(ground: Ground) -> None:
    await ground.links.probe(ACCOUNT)
    forgetful = made(ground.store, ground.clock, vault=ForgetfulVault(store=ground.store))
    with pytest.raises(TransientFailure, match="cannot be read again"):
        await forgetful.probe(ACCOUNT)
    assert await ground.documents() == ()


async def test_what_could_not_be_shown_gets_no_link(ground: Ground) -> None:
    for missing in ("invoice_number", "amount", "currency"):
        with pytest.raises(PermanentFailure):
            await ground.link(PDF, **{missing: None})
    assert await ground.documents() == ()


async def test_under_a_new_key_there_is_a_new_link_and_the_old_is_as_unknown(ground: Ground) -> None:
    old = await ground.link()
    links = made(ground.store, ground.clock, seal=Seal(key=bytes(KEY_BYTES)))
    assert await links.look(old) is None
    new = (await links.link(ground.delivery, TRANSACTION, PDF, locale="nb")).rpartition("/")[2]
    assert new != old
    visit = await links.look(new)
    assert visit is not None
    assert await links.document(visit, opened=False) == PDF


async def test_a_document_in_anothers_place_is_not_shown(ground: Ground) -> None:
    one, other = await ground.link(), await ground.link(PDF + b"2")
    visit, theirs = await ground.look(one), await ground.look(other)
    vault = ground.links.vault
    moved = await vault.get(theirs.link.document_name)
    assert moved is not None
    await vault.put(visit.link.document_name, moved)
    assert await ground.links.document(visit, opened=False) is None


# --- how long it lasts -----------------------------------------------------------------------------------------------


def ends(links: InvoiceLinks, now: datetime, due: date | None) -> datetime:
    return links._expiry(now, due)


async def test_it_lasts_so_many_days_after_the_due_date(ground: Ground) -> None:
    now = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert ends(ground.links, now, date(2026, 11, 15)) == datetime(2027, 1, 14, 23, tzinfo=UTC)  # the day is Oslo's
    assert ends(ground.links, now, None) == now + 60 * DAY
    assert ends(ground.links, now, date(2026, 1, 1)) == now + SHORTEST
    assert ends(replace(ground.links, days=3), now, date(2026, 1, 1)) == now + 3 * DAY


async def test_then_it_is_over_and_tells_nothing_more(ground: Ground) -> None:
    token = await ground.link(due_date=None)
    ground.clock.advance(60 * 86400 - 60)
    assert (await ground.look(token)).page is not None
    ground.clock.advance(120)
    assert (await ground.look(token)).page is None
    assert await ground.link(due_date=None) != token  # and a repeat gets one that works


async def test_what_is_sent_again_lasts_for_a_while_from_then(ground: Ground) -> None:
    token = await ground.link(due_date=None)
    ground.clock.advance(59 * 86400)
    assert await ground.link(due_date=None) == token
    ground.clock.advance(13 * 86400)
    assert (await ground.look(token)).page is not None


async def test_the_document_goes_along_to_the_link_that_takes_the_place_of_one_just_over(ground: Ground) -> None:
    old = await ground.link(due_date=None)
    ground.clock.advance(60 * 86400 + 60)
    late = MovedClock()  # of the process; by the database's the old one is over
    late.advance(60 * 86400 - 60)
    sold = replace(TRANSACTION, due_date=None)
    new = (await made(ground.store, late).link(ground.delivery, sold, PDF, locale="nb")).rpartition("/")[2]
    assert new != old
    assert await ground.links.document(await ground.look(new), opened=False) == PDF


async def test_it_does_not_become_shorter_by_a_repeat(ground: Ground) -> None:
    token = await ground.link(due_date=None)
    (before,) = await ground.rows()
    assert await ground.link(due_date=date(2020, 1, 1)) == token
    assert (await ground.rows())[0].expires_at == before.expires_at


# --- looking, opening, asking again ----------------------------------------------------------------------------------


async def test_looking_changes_nothing_and_the_first_opening_is_noted(ground: Ground) -> None:
    token = await ground.link()
    before = await ground.rows()
    visit = await ground.look(token)
    await ground.links.document(visit, opened=False)
    assert await ground.rows() == before
    await ground.links.document(visit, opened=True)
    (first,) = await ground.rows()
    assert first.opened_at is not None
    ground.clock.advance(60)
    await ground.links.document(visit, opened=True)  # it does not know yet
    assert (await ground.rows())[0].opened_at == first.opened_at


async def test_nobody_knows_another_token(ground: Ground) -> None:
    token = await ground.link()
    for other in (token[:-1] + ("A" if token[-1] != "A" else "Q"), "", "A" * 22, hash_of(token)):
        assert await ground.links.look(other) is None


async def expired(ground: Ground) -> Visit:
    token = await ground.link(due_date=None)
    ground.clock.advance(61 * 86400)
    return await ground.look(token)


async def test_a_new_link_is_the_message_sent_again(ground: Ground) -> None:
    visit = await expired(ground)
    await ground.links.renew(visit)
    again = await only(ground.store)
    assert (again.outcome, again.round, again.send_to, again.even_late) == (Outcome.OPEN, 1, None, True)
    line = (await ground.store.history(again.id))[-1]
    said = "resend by the customer: asked for a new link on the invoice page"
    assert (line.step, line.detail) == (Step.OPERATOR, said)


async def completed_again(ground: Ground) -> None:
    (claim,) = await ground.store.claim(ACCOUNT, "provider", 9, lease=60, suspects=False)
    await ground.store.save(claim, replace(claim.delivery, **CLOSED), NEVER)


async def test_at_most_once_a_day(ground: Ground) -> None:
    visit = await expired(ground)
    await asyncio.gather(*(ground.links.renew(visit) for _ in range(5)))
    await completed_again(ground)
    ground.clock.advance(86400 - 60)
    await ground.links.renew(visit)
    assert (await only(ground.store)).round == 1
    ground.clock.advance(120)
    await ground.links.renew(visit)
    assert (await only(ground.store)).round == 2


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.FAILED, Outcome.SKIPPED])
async def test_what_was_stopped_or_needs_a_person_stays_as_it_is(
    store: SqlStore, clock: MovedClock, outcome: Outcome
) -> None:
    ground = Ground(store, clock, made(store, clock), await closed(store, outcome=outcome))
    await ground.links.renew(await expired(ground))
    assert (await only(store)).outcome is outcome
    assert (await ground.rows())[0].renewed_at is None


async def test_an_invoice_that_is_void_is_not_sent_again(store: SqlStore, clock: MovedClock) -> None:
    ground = Ground(store, clock, made(store, clock), await closed(store, voided_at=AT))
    await ground.links.renew(await expired(ground))
    delivery = await only(store)
    assert (delivery.outcome, delivery.round) == (Outcome.COMPLETED, 0)


# --- the end of it ---------------------------------------------------------------------------------------------------


def request() -> Request:
    return Request(by="kari", at=AT, reason="sent to the wrong house")


async def test_a_revoked_link_is_as_unknown_and_a_resend_gets_another(ground: Ground) -> None:
    token = await ground.link()
    assert await ground.store.revoke_links(ground.delivery.id, request()) == 1
    assert await ground.links.look(token) is None
    assert (await ground.store.history(ground.delivery.id))[-1].detail == (
        "link revoked by kari: sent to the wrong house"
    )
    assert await ground.store.revoke_links(ground.delivery.id, request()) == 0
    assert await ground.link() != token


async def test_what_is_over_is_not_revoked(ground: Ground) -> None:
    await expired(ground)
    before = await ground.store.history(ground.delivery.id)
    assert await ground.store.revoke_links(ground.delivery.id, request()) == 0
    assert await ground.store.history(ground.delivery.id) == before


@pytest.mark.parametrize("way", ["expired", "revoked"])
async def test_what_is_behind_it_is_deleted_then(ground: Ground, way: str) -> None:
    token = await ground.link(due_date=None)
    if way == "revoked":
        await ground.store.revoke_links(ground.delivery.id, request())
    else:
        ground.clock.advance(61 * 86400)
    await ground.tidy()
    assert await ground.documents() == ()
    (row,) = await ground.rows()
    assert row.sealed == b""
    visit = await ground.links.look(token)
    assert (visit is None) is (way == "revoked")
    assert visit is None or visit.page is None
    await ground.links.vault.put(row.document_name, b"sealed")  # by a repeat just then, or from a backup of a folder
    await ground.tidy()
    assert await ground.documents() == ()


async def test_what_is_in_use_is_left_alone(ground: Ground) -> None:
    token = await ground.link()
    ground.clock.advance(86400)
    await ground.tidy()
    assert await ground.links.document(await ground.look(token), opened=False) == PDF


@pytest.mark.parametrize("kept_in", ["database", "folder"])
async def test_what_a_crash_left_is_deleted_when_it_is_old_enough(ground: Ground, kept_in: str, tmp_path: Path) -> None:
    vault: Vault = ground.links.vault if kept_in == "database" else FolderVault(folder=tmp_path / "documents")
    ground = replace(ground, links=replace(ground.links, vault=vault))
    token = await ground.link()
    names = [f"{ACCOUNT}/{ground.clock.now() - age:%Y%m%d%H%M%S}-{n:064}" for n, age in enumerate((DAY, timedelta()))]
    for name in names:
        await vault.put(name, b"sealed")
    await vault.put("T87654321/20200101000000-x", b"another account's")
    ground.clock.advance(-EVERY)
    await ground.tidy()
    assert set(await ground.documents()) == {names[1], (await ground.rows())[0].document_name}
    ground.clock.advance(ORPHAN_AFTER.total_seconds())
    await ground.tidy()
    assert await ground.documents() == ((await ground.rows())[0].document_name,)
    assert await vault.names("T87654321") != ()
    assert await ground.links.document(await ground.look(token), opened=False) == PDF


async def test_many_are_deleted_in_one_turn(ground: Ground) -> None:
    old = ground.clock.now() - DAY
    rows = [
        {"token_hash": f"{n:064}", "delivery_id": ground.delivery.id, "account_id": ACCOUNT, "document_sha256": "x"}
        | {"sealed": b"x", "created_at": old, "expires_at": old}
        for n in range(450)
    ]
    with ground.store._engines.writer.connect() as connection, connection.begin():
        connection.execute(insert(table), rows)
    await ground.tidy()
    assert {row.sealed for row in await ground.rows()} == {b""}


@pytest.mark.parametrize("kept_in", ["database", "folder"])
async def test_erasing_a_person_takes_links_and_documents_along(ground: Ground, kept_in: str, tmp_path: Path) -> None:
    vault: Vault = ground.links.vault if kept_in == "database" else FolderVault(folder=tmp_path / "documents")
    ground = replace(ground, links=replace(ground.links, vault=vault))
    token = await ground.link()
    entry = Entry(at=AT, step=Step.OPERATOR, result=Result.ACCEPTED, detail="erased")
    assert await ground.store.erase([ground.delivery.id], entry) == (ground.delivery.id,)
    assert await ground.rows() == ()
    assert await ground.links.look(token) is None
    assert (await ground.documents() == ()) is (kept_in == "database")
    ground.clock.advance(EVERY)
    await ground.tidy()
    assert await ground.documents() == ()


async def test_an_erasure_of_others_leaves_a_link_alone(ground: Ground) -> None:
    token = await ground.link()
    other = await closed(ground.store, 2)
    entry = Entry(at=AT, step=Step.OPERATOR, result=Result.ACCEPTED, detail="erased")
    await ground.store.erase([other.id], entry)
    assert await ground.links.document(await ground.look(token), opened=False) == PDF


async def test_a_delivery_in_hand_can_be_given_a_link(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    url = await made(store, clock).link(claim.delivery, TRANSACTION, PDF, locale="nb")
    await store.save(claim, claim.delivery, Schedule(due_in=60))
    assert await made(store, clock).look(url.rpartition("/")[2]) is not None
