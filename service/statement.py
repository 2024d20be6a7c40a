"""The provider's list against the record: what every transaction of a span of time is explained by."""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from service.decide import OURS
from service.delivery import ChannelFinding, Delivery, Kind, Outcome, Payments, Standing, Store, Transaction
from service.purchases import is_grouped
from service.reconcile import Span
from service.reconciling import listed

_ENDED = frozenset({Standing.VOIDED, Standing.DECLINED, Standing.FAILED, Standing.REFUNDED})


class Explanation(StrEnum):
    """Why a listed transaction needs no callback any more; or that there is no reason."""

    EXPECTED = "expected"  # this and the next four: a grouped purchase in the record, whose invoice is to come
    BILLED = "billed"  # it shows its invoice, which is to be delivered, or Kravia delivers
    CAPTURED = "captured"  # its invoice was delivered, and it is captured
    GROUPED_FAILED = "grouped_failed"  # a grouped purchase that needs a person
    GROUPED_SKIPPED = "grouped_skipped"  # one whose invoice Kravia was to deliver, and which never showed one
    COMPLETED = "completed"  # this and the next four are outcomes in the record
    OPEN = "open"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    FAILED = "failed"
    NOT_OURS = "not_ours"  # not recorded: another product, or delivered by Kravia
    ENDED = "ended"  # not recorded: voided, declined, failed or refunded at the provider
    UNFINISHED = "unfinished"  # not recorded: the customer began and has not finished
    UNEXPLAINED = "unexplained"


_OF_OUTCOME = {outcome: Explanation(outcome.value) for outcome in Outcome}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How many transactions of one currency have one explanation, and their sum in minor units."""

    explanation: Explanation
    currency: str | None
    count: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What was listed, added up; the lines are in the order of `Explanation`, then by currency."""

    lines: tuple[Line, ...] = ()
    unexplained: tuple[Transaction, ...] = ()

    @property
    def count(self) -> int:
        """How many transactions were listed."""
        return sum(line.count for line in self.lines)


def explanation(transaction: Transaction, recorded: Delivery | None) -> Explanation:
    """Explain one transaction, as far as the list and the record do; who delivers is what its first finding says."""
    if recorded is not None:
        return _of_purchase(transaction, recorded) or _OF_OUTCOME[recorded.outcome]
    grouped = is_grouped(transaction.product_type)
    if transaction.product_type not in OURS and not grouped:
        return Explanation.NOT_OURS
    if transaction.standing in _ENDED:
        return Explanation.ENDED
    if transaction.standing is Standing.INITIATED:
        return Explanation.UNFINISHED
    if transaction.findings and transaction.findings[0].value != "merchant" and not grouped:
        return Explanation.NOT_OURS
    return Explanation.UNEXPLAINED


def _of_purchase(transaction: Transaction, recorded: Delivery) -> Explanation | None:
    """Say how far a grouped purchase is; None of what is none, and of one that ended otherwise."""
    if recorded.kind is not Kind.PURCHASE:
        return None
    if recorded.voided_at is not None or transaction.standing is Standing.VOIDED:
        return Explanation.CANCELLED  # it has left its group, also when it was captured before
    if recorded.outcome is Outcome.COMPLETED:
        return Explanation.CAPTURED
    if recorded.outcome in (Outcome.OPEN, Outcome.SKIPPED) and transaction.invoice_number:
        return Explanation.BILLED
    of_outcome = {
        Outcome.OPEN: Explanation.EXPECTED,
        Outcome.FAILED: Explanation.GROUPED_FAILED,
        Outcome.SKIPPED: Explanation.GROUPED_SKIPPED,
    }
    return of_outcome.get(recorded.outcome)


def statement(transactions: Iterable[Transaction], recorded: Iterable[Delivery]) -> Statement:
    """Add up what the provider lists, each transaction explained by the record or by itself."""
    known = {delivery.transaction_id: delivery for delivery in recorded}
    explained = [(explanation(one, known.get(one.id)), one) for one in transactions]
    return Statement(
        lines=_summed(
            Line(explanation=why, currency=one.currency, count=1, amount=one.amount or 0) for why, one in explained
        ),
        unexplained=tuple(one for why, one in explained if why is Explanation.UNEXPLAINED),
    )


def added(one: Statement, other: Statement) -> Statement:
    """Return the statement over both."""
    return Statement(lines=_summed((*one.lines, *other.lines)), unexplained=(*one.unexplained, *other.unexplained))


def _summed(lines: Iterable[Line]) -> tuple[Line, ...]:
    sums: dict[tuple[Explanation, str | None], Line] = {}
    for line in lines:
        key = (line.explanation, line.currency)
        before = sums.get(key, replace(line, count=0, amount=0))
        sums[key] = replace(line, count=before.count + line.count, amount=before.amount + line.amount)
    order = list(Explanation)
    return tuple(sorted(sums.values(), key=lambda line: (order.index(line.explanation), line.currency or "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a statement, and when its transactions were created: how far the look has come."""

    statement: Statement
    created: tuple[datetime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """Holds the provider's list against the record; nothing is changed in either."""

    store: Store
    payments: Payments

    async def pages(self, span: Span) -> AsyncIterator[Page]:
        """Yield the statement in parts. Of `span`, the end is left out. Raises as the provider and the store do."""
        async for page in listed(self.payments, span):
            inside = [one for one in page if _created_before(one, span.until)]
            recorded = await self.store.known([one.id for one in inside])
            known = {delivery.transaction_id for delivery in recorded}
            owned = await self._with_owners([one for one in inside if one.id not in known])
            yield Page(
                statement=statement([owned.get(one.id, one) for one in inside], recorded),
                created=tuple(one.created_at for one in page if one.created_at is not None),
            )

    async def _with_owners(self, unknown: Sequence[Transaction]) -> dict[str, Transaction]:
        """Find out who delivers those that nothing else explains: the list does not show what their session says."""
        found = {}
        for one in unknown:
            asked = not one.findings and not is_grouped(one.product_type)  # those are recorded, whoever delivers
            if asked and explanation(one, None) is Explanation.UNEXPLAINED:
                whole = await self.payments.read(one.id)
                resolution = await self.payments.resolve(whole)
                owner = ChannelFinding(level=resolution.decided_by, value=resolution.channel)
                found[one.id] = replace(whole, findings=(owner,))
        return found


def _created_before(transaction: Transaction, until: datetime | None) -> bool:
    return transaction.created_at is None or until is None or transaction.created_at < until
