"""Purchases that are billed together: which group one belongs to, and when it is looked at. Pure functions."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from service.delivery import (
    NOTICE_ROUND,
    RECONCILE,
    Delivery,
    Purchase,
    Resolution,
    Send,
    Settled,
    Terms,
    Transaction,
    Upcoming,
)
from service.grouping import NEAR, Dates, Period, dates_of, either_period, local_midnight, period_of

OVERDUE_AFTER = timedelta(days=2)
"""How long after the later of the two issue dates a person is told that nothing was billed."""

NOTICE_RETRIES = 3
"""How often a notice is tried again that was refused for now."""

_NOTICE_WITHIN = timedelta(hours=24)  # later, nobody is told of a purchase any more
_SOONEST, _LATEST = timedelta(minutes=10), timedelta(hours=12)
_UNUSABLE = re.compile(r"[^A-Za-z0-9_-]")


def is_grouped(product_type: str | None) -> bool:
    """Tell whether a product's transactions are billed together."""
    return (product_type or "").endswith("_grouped")


def purchase_of(
    transaction: Transaction,
    resolution: Resolution,
    *,
    account_id: str,
    received_at: datetime,
    zone: ZoneInfo,
) -> Purchase:
    """Return what the record keeps of a grouped purchase; the transaction has an amount and a currency.

    What tells one group from another is compared exactly, but the country in upper case; a customer's reference that
    is missing, null, empty or blank is one and the same (dintero-api.md, section 8). The currency is our addition: one
    invoice has one.
    """
    assert transaction.amount is not None
    terms = resolution.terms or Terms()
    billing = transaction.billing
    at = transaction.purchased_at or transaction.created_at or received_at
    period = period_of(at, terms.interval, zone)
    name = (billing and billing.business_name) or ""
    number = (billing and billing.organization_number) or ""
    country = ((billing and billing.country) or "").upper()
    reference = (billing and billing.customer_reference) or ""
    key = (account_id, name, number, country, reference if reference.strip() else "", terms.interval, period.start)
    currency = transaction.currency or ""
    return Purchase(
        transaction_id=transaction.id,
        account_id=account_id,
        group=_digest(*map(str, key), currency),
        business_name=name,
        organization_number=number,
        country=country,
        customer_reference=reference if reference.strip() else "",
        interval=terms.interval,
        period_start=period.start,
        currency=currency,
        either_period=either_period(at, terms.interval, zone),
        interval_from=terms.interval_from,
        days_until_due=terms.days_until_due,
        days_from=terms.days_from,
        purchased_at=at,
        amount=transaction.amount,
        channel=resolution.channel,
        decided_by=resolution.decided_by,
        merchant_reference=transaction.merchant_reference,
        invoice_id=invoice_id(account_id, transaction.invoice_number) if transaction.invoice_number else None,
        invoice_number=transaction.invoice_number,
        invoice_date=transaction.invoice_date,
        due_date=transaction.due_date,
    )


def invoice_id(account_id: str, number: str) -> str:
    """Return the id of the delivery of a consolidated invoice: one for each account and number, and usable as an id."""
    plain = _UNUSABLE.sub("-", number)[:40]
    return f"{account_id}.invoice.{plain}" + ("" if plain == number else f".{_digest(number)[:12]}")


def period_bought_in(purchase: Purchase) -> Period:
    """Return the period that a purchase is expected to be billed with."""
    utc = ZoneInfo("UTC")
    return period_of(local_midnight(purchase.period_start, utc), purchase.interval, utc)


def billed_on(purchase: Purchase, holiday_country: str | None = None) -> Dates:
    """Return when a purchase's invoice is expected; `holiday_country` overrides the billing country."""
    country = holiday_country or purchase.country
    return dates_of(period_bought_in(purchase), days_until_due=purchase.days_until_due, country=country)


def expected_between(purchase: Purchase, zone: ZoneInfo, holiday_country: str | None = None) -> tuple[date, date]:
    """Return the first and the last day on which its invoice should be issued, by either rule and in either period."""
    country = holiday_country or purchase.country
    found = [
        dates_of(
            period_of(purchase.purchased_at + lag, purchase.interval, zone),
            days_until_due=purchase.days_until_due,
            country=country,
        )
        for lag in (-NEAR, NEAR)
    ]
    return min(dates.earliest for dates in found), max(dates.latest for dates in found)


def next_look(first: date, now: datetime, zone: ZoneInfo) -> timedelta:
    """Return how long to wait for an invoice: until the day it may be issued, then more and more seldom."""
    since = now - local_midnight(first, zone)
    if since < timedelta():
        return -since
    return min(max(since / 4, _SOONEST), _LATEST)


def given_up(last: date, now: datetime, zone: ZoneInfo, days: int) -> bool:
    """Tell whether an invoice has not come for so many days that a person has to look."""
    return now >= local_midnight(last + timedelta(days=days), zone)


def upcoming(purchase: Purchase, holiday_country: str | None = None) -> Upcoming:
    """Return on which invoice a purchase will be, as far as its customer may be promised it."""
    if purchase.either_period:
        return Upcoming(interval=purchase.interval, period_start=None, issue=None)
    dates = billed_on(purchase, holiday_country)
    issue = dates.issue if dates.certain else None
    return Upcoming(interval=purchase.interval, period_start=purchase.period_start, issue=issue)


def notice_due(delivery: Delivery, purchase: Purchase, sends: Sequence[Send], now: datetime) -> datetime | None:
    """Return when the customer is to be told of a purchase that is ours and not billed; None is not, or not any more.

    Told once, or perhaps, is told. One that was refused is due again only if it was refused for now: then there is a
    time before which nothing is sent.
    """
    notices = [send for send in sends if send.round == NOTICE_ROUND]
    if purchase.invoice_number is not None or delivery.delivered_at is not None:
        return None
    if now - _heard_of(delivery, purchase) >= _NOTICE_WITHIN or len(notices) > NOTICE_RETRIES:
        return None
    if any(send.outcome is not Settled.REFUSED for send in notices):
        return None
    if notices and delivery.no_send_before is None:
        return None
    return max(now, delivery.no_send_before or now)


def notice_within(delivery: Delivery, purchase: Purchase, now: datetime) -> float:
    """Return the seconds until a notice for which the channel has no room is looked at again: more and more seldom."""
    return max((now - _heard_of(delivery, purchase)).total_seconds() / 4, 60.0)


def _heard_of(delivery: Delivery, purchase: Purchase) -> datetime:
    """Return when a purchase became known; of one that nobody notified us of, when it was made."""
    return purchase.purchased_at if delivery.source == RECONCILE else delivery.received_at


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
