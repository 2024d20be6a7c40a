"""What `groups` prints for programs: JSON, and comma-separated values in the same words."""

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from service.delivery import Member

if TYPE_CHECKING:
    from service.grouping import Dates
    from service.groups import Coming, Group

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


_DATES = (
    *("issue_date", "due_date", "issue_date_business_day", "due_date_business_day"),
    *("payable_until", "certain"),
)
GROUP = (
    *("group", "account_id", "period", "interval", "business_name", "organization_number", "country"),
    *("customer_reference", "state", "purchases", "voided", "either_period", "amount", "currency"),
    *_DATES,
    *("invoice_numbers", "looks_like", "changes", "differences"),
)
COMING = (*_DATES, "invoices", "purchases", "amount", "currency")
MEMBER = (
    *("transaction_id", "purchased_at", "amount", "currency", "merchant_reference", "counts", "either_period"),
    *("outcome", "progress", "channel", "invoice_number", "invoice_date", "due_date", "difference"),
)
"""The columns of comma-separated values: the names of the JSON, in their order."""


def group_json(group: "Group", said: dict[str, str | None]) -> dict[str, Any]:
    """Return a group without its purchases; `said` as in the table."""
    from service.groups import remarks  # noqa: PLC0415

    key = group.key
    return {
        "group": group.id,
        "account_id": key.account_id,
        "period": group.period.label,
        "interval": key.interval.value,
        "business_name": key.business_name,
        "organization_number": key.organization_number,
        "country": key.country,
        "customer_reference": key.customer_reference,
        "state": group.state.value,
        "purchases": len(group.counted),
        "voided": len(group.members) - len(group.counted),
        "either_period": group.uncertain,
        "amount": group.total,
        "currency": key.currency,
        **_dates_json(group.dates),
        "invoice_numbers": list(group.invoices),
        "looks_like": list(group.near),
        "changes": list(group.changes),
        "differences": sorted(set(remarks(group, said))),
    }


def _dates_json(dates: "Dates") -> dict[str, Any]:
    return {
        "issue_date": dates.issue.isoformat(),
        "due_date": dates.due.isoformat(),
        "issue_date_business_day": dates.issue_business_day.isoformat(),
        "due_date_business_day": dates.due_business_day.isoformat(),
        "payable_until": dates.payable_until.isoformat(),
        "certain": dates.certain,
    }


def coming_json(day: "Coming") -> dict[str, Any]:
    """Return what is to be issued on one day in one currency."""
    counts = {"invoices": day.invoices, "purchases": day.purchases, "amount": day.total, "currency": day.currency}
    return _dates_json(day.dates) | counts


def member_json(member: Member, said: dict[str, str | None]) -> dict[str, Any]:
    """Return one purchase of a group."""
    from service.record_json import time_text  # noqa: PLC0415

    purchase, delivery = member.purchase, member.delivery
    return {
        "transaction_id": purchase.transaction_id,
        "purchased_at": time_text(purchase.purchased_at),
        "amount": purchase.amount,
        "currency": purchase.currency,
        "merchant_reference": purchase.merchant_reference,
        "counts": member.counts,
        "either_period": purchase.either_period,
        "outcome": delivery.outcome.value,
        "progress": list(delivery.progress),
        "channel": purchase.channel,
        "invoice_number": purchase.invoice_number,
        "invoice_date": purchase.invoice_date and purchase.invoice_date.isoformat(),
        "due_date": purchase.due_date and purchase.due_date.isoformat(),
        "difference": said.get(purchase.transaction_id),
    }


def print_csv(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Print rows under their names; several values of a cell are joined, and none of them is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)  # also above nothing, for whoever imports it
    writer.writerows([_cell(row[name]) for name in names] for row in rows)
    click.echo(out.getvalue(), nl=False)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    said = "; ".join(value) if isinstance(value, list) else str(value)
    return f"'{said}" if isinstance(value, str | list) and said.startswith(_FORMULA) else said
