"""Going through the provider's list: pages, what they mean, and entering what nobody told us of."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import structlog

from service.delivery import (
    LISTED_AT_ONCE,
    PROVIDER_LANE,
    RECONCILE,
    Arrival,
    Clock,
    Delivery,
    Job,
    Payments,
    Received,
    Request,
    Store,
    Transaction,
    TransientFailure,
)
from service.metrics import Metrics
from service.purchases import is_grouped
from service.reconcile import Found, Meaning, Span, first_look, meaning, spans

LEASE = 1800.0
"""Seconds that a turn may take; how long others wait for one whose process died."""
FIRST_LOOK = "first_purchases"
_NEVER_AGAIN = 100 * 365 * 86400.0
_log = structlog.get_logger()


async def listed(payments: Payments, span: Span) -> AsyncIterator[tuple[Transaction, ...]]:
    """Yield the pages of what was created in a span of time, to the first short one; each transaction once.

    Raises `TransientFailure` and `AccountFailure` as the provider does, and when its list does not move on.
    """
    seen: set[str] = set()
    after = None
    while True:
        page = await payments.list_created(span.since, span.until, after=after)
        new = {transaction.id: transaction for transaction in page if transaction.id not in seen}
        if len(page) >= LISTED_AT_ONCE and not new:
            raise TransientFailure("Dintero's list of transactions gives the same page again")
        seen.update(new)
        yield tuple(new.values())
        if len(page) < LISTED_AT_ONCE:
            return
        after = page[-1].id


class Reconciler:
    """Finds what the provider has and the record does not; `holds` says why a transaction would not be sent.

    `timezone` is that of the billing periods; without it, the first look goes no further back than any other.
    """

    def __init__(
        self,
        *,
        store: Store,
        payments: Payments,
        clock: Clock,
        metrics: Metrics,
        account_id: str,
        holds: Callable[[Transaction, datetime], str | None],
        timezone: ZoneInfo | None = None,
    ) -> None:
        self._store = store
        self._payments = payments
        self._clock = clock
        self._metrics = metrics
        self._account_id = account_id
        self._holds = holds
        self._timezone = timezone

    async def look(self, span: Span) -> AsyncIterator[tuple[Found, ...]]:
        """Yield what each page of the list means; nothing is changed."""
        born_at = await self._store.born_at()
        async for whole in listed(self._payments, span):
            page = [one for one in whole if not span.grouped_only or is_grouped(one.product_type)]
            known = await self._store.known([transaction.id for transaction in page])
            recorded = {delivery.transaction_id: delivery for delivery in known}
            yield tuple(self._found(transaction, recorded.get(transaction.id), born_at) for transaction in page)

    def _found(self, transaction: Transaction, recorded: Delivery | None, born_at: datetime) -> Found:
        means = meaning(transaction, recorded)
        holds = None
        if recorded is not None and recorded.is_held:
            holds = recorded.reason
        elif recorded is None and means is Meaning.MISSED:
            holds = self._holds(transaction, born_at)
        delivery_id = recorded.id if recorded is not None else transaction.id
        return Found(meaning=means, transaction=transaction, delivery_id=delivery_id, holds=holds)

    async def enter(self, found: Iterable[Found]) -> int:
        """Put what was missed into the record as if its callback had come; return how many that were.

        What was voided since it was delivered is looked at again, and that look sees it.
        """
        told = [one for one in found if one.meaning in (Meaning.MISSED, Meaning.VOIDED)]
        received = await asyncio.gather(*(self._store.receive(self._arrival(one)) for one in told))
        entered = 0
        for one, result in zip(told, received, strict=True):
            if result in (Received.NEW, Received.REOPENED):
                entered += 1
                self._metrics.missed()
                _log.info("callback.missed", transaction_id=one.transaction.id, result=result)
        return entered

    def _arrival(self, found: Found) -> Arrival:
        return Arrival(
            transaction_id=found.transaction.id,
            account_id=self._account_id,
            at=self._clock.now(),
            event=found.meaning is Meaning.VOIDED,
            source=RECONCILE,
        )

    async def release(self, found: Sequence[Found], request: Request) -> int:
        """Let those go out that are held, or would be; return how many that were."""
        held = [one for one in found if one.holds is not None]
        await asyncio.gather(*(self._store.release(one.delivery_id, request) for one in held))
        return len(held)

    async def turn(self, job: Job) -> str | None:
        """Look through the last day, and once a day through thirty; the note is when that was last done to its end.

        A page that fails ends the turn: what was entered stays, and the next one begins anew. While the provider is
        paused nothing is asked of it.
        """
        if any(pause.lane == PROVIDER_LANE for pause in await self._store.pauses(self._account_id)):
            return job.note
        whole_at = _moment(job.note)
        for span in spans(job.now, whole_at):
            await self._go_through(span)
            if span.until is not None:
                whole_at = job.now
        await self._look_for_purchases(job.now)
        return None if whole_at is None else whole_at.isoformat()

    async def _go_through(self, span: Span) -> None:
        seen = entered = 0
        async for page in self.look(span):
            seen += len(page)
            entered += await self.enter(page)
        _log.info("service.reconciled", since=span.since.isoformat(timespec="seconds"), seen=seen, entered=entered)

    async def _look_for_purchases(self, now: datetime) -> None:
        """Look for grouped purchases of the current quarter, once in a record's life: a job that comes due no more."""
        job = await self._store.take_job(FIRST_LOOK, every=_NEVER_AGAIN, lease=LEASE) if self._timezone else None
        if job is None or self._timezone is None:
            return
        done = False
        try:
            if span := first_look(now, self._timezone):
                await self._go_through(span)
            done = True
        finally:
            await self._store.end_job(job, done=done)


def _moment(note: str | None) -> datetime | None:
    return None if note is None else datetime.fromisoformat(note)
