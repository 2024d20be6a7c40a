"""Invoice pages behind links: tokens, what is sealed, how long it lasts, and what is deleted when it is over."""

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from service.delivery import (
    Clock,
    Delivery,
    InvoicePage,
    Job,
    KeptLink,
    PermanentFailure,
    Request,
    Store,
    Transaction,
    TransientFailure,
    Vault,
    Visit,
)
from service.sealing import Seal, Unreadable

EVERY = 3600.0
"""Seconds between two looks for what is over."""
TOKEN_BYTES = 16
SHORTEST = timedelta(days=14)
"""How long a link lasts at least from when it is sent, however long ago the invoice was due; LINK_DAYS may be less."""
ORPHAN_AFTER = timedelta(hours=1)
"""How old a document is that no link leads to before it is deleted: its link may be entered yet."""
_MOST_ROUNDS = 100  # of one turn at the chore; the next goes on
_TRIES = 3
_DAYS = ("invoice_date", "due_date")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLinks:
    """`Links` for the pipeline and `Pages` for the web, over the record and a vault."""

    store: Store
    vault: Vault
    seal: Seal
    clock: Clock
    public_url: str
    days: int  # LINK_DAYS
    timezone: ZoneInfo

    async def link(self, delivery: Delivery, transaction: Transaction, document: bytes, *, locale: str) -> str:
        """As `Links.link`. The document is kept before the link is entered: a link that is there leads somewhere.

        Two processes that do this at once agree on the link that was entered first.
        """
        sha256, page = hashlib.sha256(document).hexdigest(), _page(delivery, transaction, locale)
        for _ in range(_TRIES):
            token = secrets.token_urlsafe(TOKEN_BYTES)
            made = self._made(token, page, delivery, sha256)
            known = await self._in_force(delivery.id, sha256)
            await self._keep(known or made, document)
            kept = await self.store.keep_link(made)
            if known is None and kept.token_hash != made.token_hash:
                await self.vault.delete(made.document_name)
            elif known is not None and kept.token_hash == made.token_hash:  # that one has just come to its end
                await self._keep(made, document)
            opened = self._opened(kept)
            if opened is not None:
                return f"{self.public_url}/i/{opened[0]}"
            await self.store.drop_link(kept.token_hash)  # sealed under a LINK_KEY that is not ours any more
        raise TransientFailure("another process is making links under another LINK_KEY")

    async def look(self, token: str) -> Visit | None:
        """As `Pages.look`."""
        link = await self.store.link(hash_of(token))
        if link is None or link.revoked_at is not None:
            return None
        if link.expires_at <= self.clock.now():
            return Visit(link=link, page=None)
        opened = self._opened(link)
        return Visit(link=link, page=opened[1]) if opened else None

    async def document(self, visit: Visit, *, opened: bool) -> bytes | None:
        """As `Pages.document`."""
        sealed = await self.vault.get(visit.link.document_name)
        if sealed is None:
            return None
        try:
            document = self.seal.open(sealed, about=visit.link.document_name)
        except Unreadable:
            return None
        if opened and visit.link.opened_at is None:
            await self.store.open_link(visit.link.token_hash)
        return document

    async def renew(self, visit: Visit) -> None:
        """As `Pages.renew`."""
        reason = "asked for a new link on the invoice page"
        asked = Request(by="the customer", at=self.clock.now(), reason=reason, even_late=True)
        await self.store.renew_link(visit.link, asked)

    async def probe(self, account_id: str) -> None:
        """Keep something, read it again and delete it; raises `TransientFailure` where that does not do.

        What a crash leaves of it goes as any document does that no link leads to.
        """
        now, token_hash = self.clock.now(), hash_of(secrets.token_urlsafe(TOKEN_BYTES))
        name = KeptLink(
            token_hash=token_hash,
            delivery_id="",
            account_id=account_id,
            document_sha256="",
            sealed=b"",
            created_at=now,
            expires_at=now,
        ).document_name
        sealed = self.seal.close(b"%PDF", about=name)
        await self.vault.put(name, sealed)
        kept = await self.vault.get(name)
        await self.vault.delete(name)
        if kept != sealed:
            raise TransientFailure("what was kept there cannot be read again")

    async def _in_force(self, delivery_id: str, sha256: str) -> KeptLink | None:
        """Return the link that a repeat is to get: its document is put again, for it may have been lost or moved."""
        now = self.clock.now()
        for link in await self.store.links_of(delivery_id):
            usable = link.revoked_at is None and link.expires_at > now and self._opened(link) is not None
            if usable and link.document_sha256 == sha256:
                return link
        return None

    async def _keep(self, link: KeptLink, document: bytes) -> None:
        await self.vault.put(link.document_name, self.seal.close(document, about=link.document_name))

    def _made(self, token: str, page: InvoicePage, delivery: Delivery, sha256: str) -> KeptLink:
        now, token_hash = self.clock.now(), hash_of(token)
        return KeptLink(
            token_hash=token_hash,
            delivery_id=delivery.id,
            account_id=delivery.account_id,
            document_sha256=sha256,
            sealed=self.seal.close(_written(token, page), about=token_hash),
            created_at=now,
            expires_at=self._expiry(now, page.due_date),
        )

    def _expiry(self, now: datetime, due: date | None) -> datetime:
        """Return LINK_DAYS after the end of the due date, or after now when there is none; never too soon."""
        days = timedelta(days=self.days)
        if due is None:
            return now + days
        end = datetime.combine(due + timedelta(days=1), time(), self.timezone).astimezone(UTC)
        return max(end + days, now + min(days, SHORTEST))

    def _opened(self, link: KeptLink) -> tuple[str, InvoicePage] | None:
        """Return the token and what its page shows; None when it was sealed under another key."""
        try:
            return _read(self.seal.open(link.sealed, about=link.token_hash))
        except Unreadable:
            return None


def hash_of(token: str) -> str:
    """Return what the record knows a token by. 128 random bits need neither salt nor slowness."""
    return hashlib.sha256(token.encode()).hexdigest()


def _page(delivery: Delivery, transaction: Transaction, locale: str) -> InvoicePage:
    """Return what the page will show; raises `PermanentFailure` for what no message could be rendered of, either."""
    if not transaction.invoice_number or transaction.amount is None or not transaction.currency:
        raise PermanentFailure("the transaction has no invoice number, amount or currency")
    return InvoicePage(
        delivery_id=delivery.id,
        locale=locale,
        invoice_number=transaction.invoice_number,
        amount=transaction.amount,
        currency=transaction.currency,
        invoice_date=transaction.invoice_date,
        due_date=transaction.due_date,
        payment_reference=transaction.payment_reference,
        merchant_reference=transaction.merchant_reference,
    )


def _written(token: str, page: InvoicePage) -> bytes:
    return json.dumps({"token": token, "page": asdict(page)}, default=date.isoformat).encode()


def _read(content: bytes) -> tuple[str, InvoicePage]:
    read: dict[str, Any] = json.loads(content)
    days = {name: day and date.fromisoformat(day) for name in _DAYS for day in [read["page"][name]]}
    return read["token"], InvoicePage(**(read["page"] | days))


# --- what is over ----------------------------------------------------------------------------------------------------


def closing(store: Store, vault: Vault, *, account_id: str) -> Callable[[Job], Awaitable[str | None]]:
    """Return the chore that deletes what is behind links that have expired or were revoked, and what none leads to."""

    async def run(job: Job) -> str | None:
        for _ in range(_MOST_ROUNDS):
            over = await store.ended_links(account_id)
            if not over:
                break
            for link in over:
                await vault.delete(link.document_name)
            await store.empty_links([link.token_hash for link in over])
        await _delete_orphans(store, vault, account_id, job.now - ORPHAN_AFTER)
        return None

    return run


async def _delete_orphans(store: Store, vault: Vault, account_id: str, before: datetime) -> None:
    """Delete the documents whose process died before it entered their link, and those of erased deliveries."""
    after, latest = None, f"{account_id}/{before:%Y%m%d%H%M%S}"
    while True:
        names = await vault.names(account_id, after=after)
        old = {name: name.rpartition("-")[2] for name in names if name < latest}
        known = await store.known_links(list(old.values())) if old else frozenset()
        for name, token_hash in old.items():
            if token_hash not in known:
                await vault.delete(name)
        if not names or len(old) < len(names):  # they come in the order of their times
            return
        after = names[-1]
