"""The Store protocol over a database: each method hands a write to the writer's thread or a read to the readers'."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from service.delivery import (
    ALL,
    Arrival,
    Calls,
    Capture,
    Claim,
    Clock,
    Concern,
    Counts,
    Delivery,
    Dossier,
    Entry,
    Filter,
    Job,
    KeptLink,
    Member,
    Members,
    News,
    Outcome,
    Pace,
    Pause,
    Probe,
    Purchase,
    Received,
    Report,
    Reported,
    Request,
    Schedule,
    Send,
)
from service.store import (
    alerts,
    claims,
    concerns,
    erasure,
    links,
    paces,
    pauses,
    purchases,
    queries,
    receipts,
    search,
    work,
)
from service.store.book import Book
from service.store.clock import shift
from service.store.engines import Engines
from service.store.errors import lost, unavailable
from service.store.tables import storable
from service.store.writer import Write, Writer

T = TypeVar("T")


class SqlStore:
    """The record in SQLite or PostgreSQL. `open_store` opens it."""

    def __init__(self, opened: Engines, clock: Clock, readers: ThreadPoolExecutor, *, patience: float) -> None:
        self._engines = opened
        self._clock = clock
        self._readers = readers
        self._writer = Writer(opened, clock, patience)

    async def close(self) -> None:
        """Finish the writes that were asked for."""
        await self._writer.close()

    async def receive(self, arrival: Arrival) -> Received:
        """As `Store.receive`; raises `ValueError` for an id with a character that a database refuses."""
        _usable(arrival.transaction_id, arrival.account_id)
        receive = partial(work.receive, arrival=arrival)
        return await self._writer.write(Write(apply=receive, key=arrival.transaction_id, urgent=True))

    async def claim(
        self, account_id: str, lane: str, limit: int, *, lease: float, suspects: bool, probing: str | None = None
    ) -> tuple[Claim, ...]:
        """As `Store.claim`."""

        def take(book: Book) -> tuple[Claim, ...]:
            length = timedelta(seconds=lease)
            return claims.take(
                book.connection,
                account_id,
                lane,
                limit,
                lease=length,
                suspects=suspects,
                probing=probing,
                shift=book.shift,
            )

        return await self._writer.write(Write(apply=take))

    async def adopt(self, account_id: str, lanes: Sequence[str]) -> int:
        """As `Store.adopt`."""
        return await self._writer.write(
            Write(apply=lambda book: claims.adopt(book.connection, account_id, lanes, book.shift))
        )

    async def renew(self, claims: Sequence[Claim], *, lease: float) -> frozenset[str]:
        """As `Store.renew`."""
        renewals = [self._change(c.delivery.id, partial(work.renew, claim=c, lease=lease)) for c in claims]
        held = await asyncio.gather(*renewals)
        return frozenset(claim.token for claim, still in zip(claims, held, strict=True) if still)

    async def save(self, claim: Claim, delivery: Delivery, schedule: Schedule, entries: Sequence[Entry] = ()) -> None:
        """As `Store.save`; raises `ValueError` for an open delivery without a due time, for nobody would look at it."""
        if delivery.outcome is Outcome.OPEN and schedule.due_in is None:
            raise ValueError("an open delivery needs a due time")
        save = partial(work.save, claim=claim, delivery=delivery, schedule=schedule, entries=entries)
        await self._change(claim.delivery.id, save)

    async def begin_send(self, claim: Claim, send: Send, delivery: Delivery | None = None) -> None:
        """As `Store.begin_send`; raises `ValueError` as `receive`."""
        _usable(send.id)
        begin = partial(work.begin_send, claim=claim, send=send, delivery=delivery)
        await self._change(claim.delivery.id, begin, sends=True)

    async def settle_send(self, send: Send, entries: Sequence[Entry]) -> None:
        """As `Store.settle_send`; raises `KeyError` for an unknown delivery."""
        await self._change(send.delivery_id, partial(work.settle_send, send=send, entries=entries), sends=True)

    async def report(self, account_id: str, report: Report) -> Reported:
        """As `Store.report`."""
        send = await self._read(partial(receipts.about, account_id=account_id, report=report))
        if send is None:
            return await self._writer.write(Write(apply=partial(receipts.keep, account_id=account_id, report=report)))
        apply = partial(receipts.apply, account_id=account_id, report=report)
        return await self._change(
            send.delivery_id, partial(apply, delivery_id=send.delivery_id, send_id=send.id), sends=True
        )

    async def reported(self, account_id: str, report: Report) -> Send | None:
        """As `Store.reported`."""
        return await self._read(partial(receipts.about, account_id=account_id, report=report))

    async def unmatched_reports(self, account_id: str) -> tuple[Report, ...]:
        """As `Store.unmatched_reports`."""
        return await self._read(partial(receipts.unmatched, account_id=account_id, shift=shift(self._clock)))

    async def take_turn(self, account_id: str, lane: str, pace: Pace) -> float:
        """As `Store.take_turn`."""
        return await self._writer.write(
            Write(apply=lambda book: paces.take_turn(book.connection, account_id, lane, pace, book.shift))
        )

    async def fall_from(self, account_id: str, lane: str, after: float) -> int:
        """As `Store.fall_from`."""
        return await self._writer.write(
            Write(apply=lambda book: paces.fall_from(book.connection, account_id, lane, after, book.shift))
        )

    async def begin_capture(self, claim: Claim, capture: Capture) -> None:
        """As `Store.begin_capture`; raises `ValueError` as `receive`."""
        _usable(capture.id)
        await self._change(
            claim.delivery.id, partial(work.begin_capture, claim=claim, capture=capture), sends=True, captures=True
        )

    async def settle_capture(
        self, capture: Capture, entries: Sequence[Entry], *, began_at: datetime | None = None
    ) -> None:
        """As `Store.settle_capture`; raises `KeyError` for an unknown delivery."""
        settle = partial(work.settle_capture, capture=capture, entries=entries, began_at=began_at)
        await self._change(capture.delivery_id, settle, captures=True)

    async def record_purchase(self, claim: Claim, purchase: Purchase) -> None:
        """As `Store.record_purchase`."""
        await self._change(claim.delivery.id, partial(purchases.record, claim=claim, purchase=purchase))

    async def enter_invoice(self, invoice_id: str, carrier: Delivery, at: datetime) -> None:
        """As `Store.enter_invoice`; raises `ValueError` as `receive`."""
        _usable(invoice_id)
        await self._change(invoice_id, partial(purchases.enter_invoice, invoice_id=invoice_id, carrier=carrier, at=at))

    async def adopt_skipped(self, account_id: str) -> int:
        """As `Store.adopt_skipped`."""
        return await self._writer.write(
            Write(apply=lambda book: purchases.adopt_skipped(book.connection, account_id, book.shift), alone=True)
        )

    async def members(self, chosen: Members) -> tuple[Member, ...]:
        """As `Store.members`."""
        return await self._read(partial(purchases.members, chosen=chosen, shift=shift(self._clock)))

    async def unread(self, account_id: str, before: datetime) -> int:
        """As `Store.unread`."""
        return await self._read(partial(purchases.unread, account_id=account_id, before=before))

    async def remark(self, transaction_id: str, words: str | None) -> None:
        """As `Store.remark`."""
        note = partial(purchases.remark, transaction_id=transaction_id, words=words)
        await self._writer.write(Write(apply=lambda book: note(book.connection), alone=True))

    async def retry(self, delivery_id: str, request: Request) -> Delivery:
        """As `Store.retry`."""
        return await self._change(delivery_id, partial(work.retry, delivery_id=delivery_id, request=request))

    async def resend(self, delivery_id: str, request: Request) -> Delivery:
        """As `Store.resend`."""
        return await self._change(delivery_id, partial(work.resend, delivery_id=delivery_id, request=request))

    async def cancel(self, delivery_id: str, request: Request) -> Delivery:
        """As `Store.cancel`; a completed delivery stays as it is, for there is nothing left to stop."""
        cancel = partial(work.cancel, delivery_id=delivery_id, request=request)
        return await self._change(delivery_id, cancel, sends=True, captures=True)

    async def resolve(self, delivery_id: str, request: Request, *, delivered: bool) -> Delivery:
        """As `Store.resolve`."""
        resolve = partial(work.resolve, delivery_id=delivery_id, request=request, delivered=delivered)
        return await self._change(delivery_id, resolve, sends=True, captures=True)

    async def release(self, delivery_id: str, request: Request) -> Delivery:
        """As `Store.release`."""
        return await self._change(delivery_id, partial(work.release, delivery_id=delivery_id, request=request))

    async def note(self, delivery_id: str, entry: Entry) -> None:
        """As `Store.note`."""
        await self._change(delivery_id, partial(work.note, delivery_id=delivery_id, entry=entry))

    async def pause(self, account_id: str, lane: str, reason: str, *, by: str | None, probe_in: float | None) -> bool:
        """As `Store.pause`."""
        pause = partial(pauses.pause, by=by, probe_in=probe_in)
        return await self._share(pause, account_id, lane, reason, alone=True)

    async def resume(self, account_id: str, lane: str) -> bool:
        """As `Store.resume`."""
        return await self._share(pauses.resume, account_id, lane, alone=True)

    async def pauses(self, account_id: str) -> tuple[Pause, ...]:
        """As `Store.pauses`."""
        return await self._read(partial(pauses.in_force, account_id=account_id))

    async def take_probe(self, account_id: str, lanes: Sequence[str], *, lease: float) -> Probe | None:
        """As `Store.take_probe`."""
        return await self._share(partial(pauses.take_probe, lease=lease), account_id, lanes)

    async def renew_probe(self, probe: Probe, *, lease: float) -> None:
        """As `Store.renew_probe`."""
        await self._share(partial(pauses.renew_probe, lease=lease), probe, alone=True)

    async def end_probe(self, probe: Probe, *, fault: str | None, next_in: float) -> bool:
        """As `Store.end_probe`."""
        end = partial(pauses.end_probe, fault=fault, next_in=next_in)
        return await self._share(end, probe, alone=True)

    async def born_at(self) -> datetime:
        """As `Store.born_at`."""
        return await self._read(queries.born_at)

    async def take_job(self, name: str, *, every: float, lease: float) -> Job | None:
        """As `Store.take_job`."""
        return await self._share(partial(pauses.take_job, every=every, lease=lease), name)

    async def end_job(self, job: Job, *, done: bool, note: str | None = None) -> None:
        """As `Store.end_job`."""
        await self._share(partial(pauses.end_job, done=done, note=note), job)

    async def known(self, transaction_ids: Sequence[str]) -> tuple[Delivery, ...]:
        """As `Store.known`."""
        return await self._read(partial(queries.known, transaction_ids=transaction_ids))

    async def find(self, reference: str) -> tuple[Delivery, ...]:
        """As `Store.find`."""
        return await self._read(partial(search.find, reference=reference))

    async def listing(
        self, chosen: Filter = ALL, *, limit: int | None = None, after: Delivery | None = None
    ) -> tuple[Delivery, ...]:
        """As `Store.listing`."""
        return await self._read(partial(queries.listing, chosen=chosen, limit=limit, after=after))

    async def ids(self, chosen: Filter) -> tuple[tuple[str, Outcome], ...]:
        """As `Store.ids`."""
        return await self._read(partial(queries.ids, chosen=chosen))

    async def history(self, delivery_id: str) -> tuple[Entry, ...]:
        """As `Store.history`."""
        return await self._read(partial(queries.entries, delivery_id=delivery_id))

    async def sends(self, delivery_id: str) -> tuple[Send, ...]:
        """As `Store.sends`."""
        found = await self._read(partial(queries.sends_among, ids=[delivery_id]))
        return tuple(intent.value for intent in found)

    async def captures(self, delivery_id: str) -> tuple[Capture, ...]:
        """As `Store.captures`."""
        found = await self._read(partial(queries.captures_among, ids=[delivery_id]))
        return tuple(intent.value for intent in found)

    async def dossier(self, delivery_id: str) -> Dossier:
        """As `Store.dossier`."""
        return await self._read(partial(queries.dossier, delivery_id=delivery_id))

    async def concerning(
        self, *, addresses: Sequence[str] = (), organization_number: str | None = None
    ) -> tuple[Delivery, ...]:
        """As `Store.concerning`."""
        look = partial(search.concerning, addresses=addresses, organization_number=organization_number)
        return await self._read(look)

    async def erase(self, delivery_ids: Sequence[str], entry: Entry) -> tuple[str, ...]:
        """As `Store.erase`."""

        def erase(book: Book) -> tuple[str, ...]:
            return erasure.erase(book.connection, delivery_ids, entry, book.shift)

        return await self._writer.write(Write(apply=erase))

    async def erase_old(self, account_id: str, before: datetime, *, limit: int, entry: Entry) -> int:
        """As `Store.erase_old`."""

        def erase(book: Book) -> int:
            return erasure.erase_old(book.connection, account_id, before, limit=limit, entry=entry, shift=book.shift)

        return await self._writer.write(Write(apply=erase))

    async def keep_link(self, link: KeptLink) -> KeptLink:
        """As `Store.keep_link`."""
        return await self._change(link.delivery_id, partial(links.keep, link=link))

    async def link(self, token_hash: str) -> KeptLink | None:
        """As `Store.link`."""
        return await self._read(partial(links.one, token_hash=token_hash))

    async def links_of(self, delivery_id: str) -> tuple[KeptLink, ...]:
        """As `Store.links_of`."""
        return await self._read(partial(links.of_delivery, delivery_id=delivery_id))

    async def open_link(self, token_hash: str) -> None:
        """As `Store.open_link`."""
        await self._share(links.opened, token_hash, alone=True)

    async def renew_link(self, link: KeptLink, request: Request) -> bool:
        """As `Store.renew_link`."""
        return await self._change(link.delivery_id, partial(links.renew, link=link, request=request))

    async def revoke_links(self, delivery_id: str, request: Request) -> int:
        """As `Store.revoke_links`."""
        return await self._change(delivery_id, partial(links.revoke, delivery_id=delivery_id, request=request))

    async def drop_link(self, token_hash: str) -> None:
        """As `Store.drop_link`."""
        await self._share(links.drop, token_hash, alone=True)

    async def ended_links(self, account_id: str) -> tuple[KeptLink, ...]:
        """As `Store.ended_links`."""
        return await self._read(partial(links.ended, account_id=account_id, shift=shift(self._clock)))

    async def empty_links(self, token_hashes: Sequence[str]) -> None:
        """As `Store.empty_links`."""
        empty = partial(links.empty, token_hashes=token_hashes)
        await self._writer.write(Write(apply=lambda book: empty(book.connection), alone=True))

    async def known_links(self, token_hashes: Sequence[str]) -> frozenset[str]:
        """As `Store.known_links`."""
        return await self._read(partial(links.known, token_hashes=token_hashes))

    async def put_document(self, name: str, sealed: bytes) -> None:
        """As `Store.put_document`."""
        put = partial(links.put_document, name=name, sealed=sealed)
        await self._writer.write(Write(apply=lambda book: put(book.connection), alone=True))

    async def document(self, name: str) -> bytes | None:
        """As `Store.document`."""
        return await self._read(partial(links.document, name=name))

    async def delete_document(self, name: str) -> None:
        """As `Store.delete_document`."""
        forget = partial(links.delete_document, name=name)
        await self._writer.write(Write(apply=lambda book: forget(book.connection), alone=True))

    async def document_names(self, account_id: str, *, after: str | None = None) -> tuple[str, ...]:
        """As `Store.document_names`."""
        return await self._read(partial(links.document_names, account_id=account_id, after=after))

    async def counts(self) -> Counts:
        """As `Store.counts`."""
        return await self._read(partial(queries.counts, shift=shift(self._clock)))

    async def concerns(self, account_id: str) -> tuple[Concern, ...]:
        """As `Store.concerns`."""
        return await self._read(partial(concerns.concerns, account_id=account_id, shift=shift(self._clock)))

    async def calls(self, account_id: str) -> Calls:
        """As `Store.calls`."""
        return await self._read(partial(concerns.calls, account_id=account_id))

    async def news(self, account_id: str, way: str, urgent: Sequence[Concern]) -> tuple[News, ...]:
        """As `Store.news`."""
        changed = partial(alerts.out_of_date, account_id=account_id, way=way, urgent=urgent, shift=shift(self._clock))
        if await self._read(changed):
            await self._share(alerts.bring_up_to_date, account_id, way, urgent)
        return await self._read(partial(alerts.untold, account_id=account_id, way=way))

    async def told(self, account_id: str, way: str, upto: datetime) -> None:
        """As `Store.told`."""
        await self._share(alerts.told, account_id, way, upto)

    async def ping(self) -> None:
        """As `Store.ping`: it writes a row and commits."""
        await self._writer.write(Write(apply=work.ping))

    def _share(self, apply: Callable[..., T], *about: object, alone: bool = False) -> asyncio.Future[T]:
        """Write what belongs to no delivery; `apply` is a function of the connection, `about` and the clock's shift."""
        shared = Write(apply=lambda book: apply(book.connection, *about, shift=book.shift), alone=alone)
        return self._writer.write(shared)

    def _change(
        self, key: str, apply: Callable[[Book], T], *, sends: bool = False, captures: bool = False
    ) -> asyncio.Future[T]:
        return self._writer.write(Write(apply=apply, key=key, sends=sends, captures=captures))

    async def _read(self, read: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._answered, read)

    def _answered(self, read: Callable[[Connection], T], tries: int = 2) -> T:
        try:
            with self._engines.readers.connect() as connection:
                return read(connection)
        except DBAPIError as error:
            if tries == 1 or not lost(error):
                raise unavailable(error, self._engines.secrets) from error
        return self._answered(read, tries - 1)  # the connection was an old one: a server that came back has dropped it


def _usable(*ids: str) -> None:
    if any(storable(i) != i for i in ids):
        raise ValueError("an id holds a character that a database refuses")
