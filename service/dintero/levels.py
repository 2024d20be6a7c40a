"""What one document says of a product: who delivers, and on which terms; the home of where in it that stands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.delivery import Interval, Term
from service.dintero.reading import members, objects, text, whole

KRAVIA = "kravia"
GROUPED = "_grouped"
"""How the product types end of which several purchases make one invoice."""
CHANNEL = "kravia:invoice_channel"
"""The member of a transaction's metadata that says who delivers."""
MOST_DAYS = 365

_LONGEST = 50
_OLD_NAMES = {"provider": KRAVIA}  # values of invoice_delivery_method

Reader = Callable[[object], str | None]
Document = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A value, and the member of the document that it was found in."""

    value: str
    where: str


def channel_of(settings: object) -> str | None:
    """Return the `invoice_channel` in one object, also by its older name (dintero-api.md, section 8, row 7)."""
    given = members(settings)
    if channel := text(given.get("invoice_channel"), _LONGEST):
        return channel.lower()
    older = text(given.get("invoice_delivery_method"), _LONGEST)
    return _OLD_NAMES.get(older.lower(), older.lower()) if older else None


def interval_of(settings: object) -> str | None:
    """Return the `invoice_schedule.interval` in one object; a word that is none of ours says nothing."""
    word = (text(members(members(settings).get("invoice_schedule")).get("interval"), _LONGEST) or "").lower()
    return word if word in set(Interval) else None


def days_of(settings: object) -> str | None:
    """Return the `days_until_due` in one object; what is no whole number from 0 to 365 says nothing."""
    days = whole(members(settings).get("days_until_due"))
    return str(days) if days is not None and 0 <= days <= MOST_DAYS else None


TERMS: Mapping[Term, Reader] = {Term.INTERVAL: interval_of, Term.DAYS_UNTIL_DUE: days_of}


def configured(document: Document, product_type: str, read: Reader) -> Said | None:
    """Return what the `configuration` of a session, profile or checkout says of a product: its own, then its option."""
    return _of_product(document, product_type, read) or _of_option(document, product_type, read)


def said_by_session(session: Document, transaction: Document, product_type: str, read: Reader) -> Said | None:
    """Return what a session says: its configuration of the product, the payment's own, its payment options."""
    return (
        _of_product(session, product_type, read)
        or _said(read(transaction.get("payment")), "payment")
        or _said(read(session.get("payment")), "payment")
        or _of_option(session, product_type, read)
    )


def _of_product(document: Document, product_type: str, read: Reader) -> Said | None:
    product, _, kind = product_type.partition(".")
    found = members(members(document.get("configuration")).get(product)).get(kind)
    return _said(read(found), f"configuration.{product_type}")


def _of_option(document: Document, product_type: str, read: Reader) -> Said | None:
    options = objects(members(document.get("configuration")).get("payment_options"))
    ours = (o for o in options if product_type in (o.get("type"), o.get("payment_product_type")))
    found = next((found for option in ours if (found := read(option.get("details")))), None)
    return _said(found, "configuration.payment_options")


def _said(value: str | None, where: str) -> Said | None:
    return Said(value=value, where=where) if value is not None else None
