"""What a transaction in the provider's list means, beside what is recorded of it: pure rules, nothing here acts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from service.decide import OURS, Rules, by_age
from service.delivery import RECONCILE, Delivery, Interval, Kind, Outcome, Standing, Transaction
from service.grouping import NEAR, local_midnight, period_of
from service.purchases import is_grouped

RECENT = timedelta(hours=24)
WHOLE = timedelta(days=30)
WHOLE_EVERY = timedelta(hours=24)
_ENDED = frozenset({Standing.VOIDED, Standing.DECLINED, Standing.FAILED, Standing.REFUNDED})
_TO_DELIVER = frozenset({Standing.HELD, Standing.AUTHORIZED})


class Meaning(StrEnum):
    """What is to be made of a listed transaction."""

    MISSED = "missed"  # there is something to deliver, and nobody told us
    VOIDED = "voided"  # voided since the customer got it, or may have, which the record does not know
    HELD = "held"  # recorded, and not sent until a person says so
    RECORDED = "recorded"
    UNFINISHED = "unfinished"  # the customer has not finished: its callback, or a later look, brings it
    ENDED = "ended"  # voided, declined, failed or refunded before it was recorded
    NOT_OURS = "not_ours"  # another product


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A listed transaction, and what it means; `holds` is why it is not sent until a person says so."""

    meaning: Meaning
    transaction: Transaction
    delivery_id: str  # of its delivery in the record, or what that will be
    holds: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span of time in which transactions were created; without `until`, up to now."""

    since: datetime
    until: datetime | None = None
    grouped_only: bool = False  # so long ago, only purchases that are not billed yet are of any use


def meaning(transaction: Transaction, recorded: Delivery | None) -> Meaning:
    """Say what a listed transaction means. The list shows no session: who delivers is found out when it is read."""
    if recorded is not None:
        return _of_recorded(transaction, recorded)
    if transaction.product_type not in OURS and not is_grouped(transaction.product_type):
        return Meaning.NOT_OURS
    if transaction.standing is Standing.INITIATED:
        return Meaning.UNFINISHED
    return Meaning.ENDED if transaction.standing in _ENDED else Meaning.MISSED


def _of_recorded(transaction: Transaction, recorded: Delivery) -> Meaning:
    if recorded.is_held:
        return Meaning.HELD if transaction.standing not in _ENDED else Meaning.RECORDED
    voided = transaction.standing is Standing.VOIDED and recorded.voided_at is None
    # An open purchase is not read again for weeks, and its void takes it out of its group.
    gathers = recorded.kind is Kind.PURCHASE and recorded.outcome is Outcome.OPEN
    if voided and (gathers or recorded.may_be_voided):
        return Meaning.VOIDED
    # "Never completed by the customer", who did so after all; what is skipped for another reason stays so.
    finished = recorded.outcome is Outcome.SKIPPED and recorded.closed_waiting and transaction.standing in _TO_DELIVER
    return Meaning.MISSED if finished else Meaning.RECORDED


def would_be_held(transaction: Transaction, account_id: str, rules: Rules, born_at: datetime) -> str | None:
    """Return why a transaction would be held if it were entered now; None when it would be sent, or is Kravia's.

    A grouped purchase is never held, for nothing is sent of it: what may be is its invoice.
    """
    if is_grouped(transaction.product_type):
        return None
    if transaction.findings and transaction.findings[0].value != "merchant":
        return None
    entered = Delivery(
        id=transaction.id,
        account_id=account_id,
        transaction_id=transaction.id,
        received_at=transaction.read_at,
        source=RECONCILE,
    )
    verdict = by_age(entered, transaction, (), rules, born_at)
    return verdict.reason if verdict and verdict.held else None


def spans(now: datetime, whole_at: datetime | None) -> tuple[Span, ...]:
    """Return what a turn looks through: the last 24 hours, and (last done at `whole_at`) once a day 30 days.

    The longer one comes second and leaves out the first, so that what keeps it from ending keeps nobody waiting.
    """
    recent = Span(since=now - RECENT)
    if whole_at is not None and now - whole_at < WHOLE_EVERY:
        return (recent,)
    return (recent, Span(since=now - WHOLE, until=recent.since))


def first_look(now: datetime, zone: ZoneInfo) -> Span | None:
    """Return what is looked through for purchases once in a record's life, beyond what is looked through anyway.

    That is from the first day (in `zone`) of the current quarter on: a session may say that they are billed by the
    quarter, whatever the setting.
    """
    since = local_midnight(period_of(now, Interval.QUARTERLY, zone).start, zone) - NEAR
    until = now - WHOLE
    return Span(since=since, until=until, grouped_only=True) if since < until else None


def progress(seen: Sequence[datetime], span: Span, now: datetime) -> float:
    """Return how far a look has come, 0 to 1: how much of its span lies between the first and last creation seen.

    That holds for a list in order of time, whichever way it runs.
    """
    length = (span.until or now) - span.since
    if not seen or length <= timedelta():
        return 0.0
    return max(0.0, min(1.0, (max(seen) - min(seen)) / length))
