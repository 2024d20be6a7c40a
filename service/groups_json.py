"""Groups as the demo shows them: what the record expects of each, and what of it was billed otherwise. Pure."""

from collections.abc import Iterable
from typing import Any

from service.delivery import Member
from service.groups import Calendar, compared, groups_of


def groups_json(members: Iterable[Member], calendar: Calendar) -> list[dict[str, Any]]:
    """Return each group that has purchases to bill or billed; amounts in minor units, days as ISO 8601.

    `purchases` and `billed` are transaction ids, `billed` those whose invoice is known. `differences` are words by
    transaction id, of those alone that were billed otherwise. `members` are whole groups and whole invoices.
    """
    whole = tuple(members)
    said = compared(whole, calendar)
    found = []
    for group in groups_of(whole, calendar):
        ids = [member.purchase.transaction_id for member in group.counted]
        if not ids:
            continue
        days = {
            "issue_date": group.dates.issue,
            "issue_date_business_day": group.dates.issue_business_day,
            "due_date": group.dates.due,
            "due_date_business_day": group.dates.due_business_day,
        }
        found.append(
            {
                "purchases": ids,
                "billed": [one.purchase.transaction_id for one in group.counted if one.purchase.invoice_id],
                "amount": group.total,
                "currency": group.key.currency,
                **{name: day.isoformat() for name, day in days.items()},
                "differences": {name: words for name in ids if (words := said.get(name))},
            }
        )
    return found
