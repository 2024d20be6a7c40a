"""A transaction's JSON becomes a `Transaction`: what the service needs; the rest, such as identities, is never read."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime

from service.delivery import (
    ChannelFinding,
    DecidedBy,
    Line,
    Party,
    Standing,
    TermFinding,
    Transaction,
    TransientFailure,
)
from service.dintero.events import Event, authorized_at, collection, in_order, voided_at
from service.dintero.levels import CHANNEL, GROUPED, TERMS, channel_of, said_by_session
from service.dintero.reading import REFERENCE, day, elements, members, moment, quantity, text, whole

_STANDINGS = {
    "INITIATED": Standing.INITIATED,
    "INITIALIZED": Standing.INITIATED,
    "ON_HOLD": Standing.HELD,
    "AUTHORIZED": Standing.AUTHORIZED,
    "CAPTURED": Standing.AUTHORIZED,
    "PARTIALLY_CAPTURED": Standing.AUTHORIZED,
    "AUTHORIZATION_VOIDED": Standing.VOIDED,
    "DECLINED": Standing.DECLINED,
    "FAILED": Standing.FAILED,
    "REFUNDED": Standing.REFUNDED,
    "PARTIALLY_REFUNDED": Standing.REFUNDED,
    "PARTIALLY_CAPTURED_REFUNDED": Standing.REFUNDED,
}
_NUMBER = "kravia:invoice_number"
_URL = "kravia:invoice_url"
_DATE = "kravia:invoice_date"
_DUE_DATE = "kravia:invoice_due_date"
_PAYMENT_REFERENCES = ("kravia:kid", "kravia:payment_reference", "kravia:ocr")
_PROFILE = "session:profile_id"
_LONGEST_URL = 8000
_COUNTRY_LETTERS = 2

Document = Mapping[str, object]


def parse_transaction(json: object, *, read_at: datetime) -> Transaction:
    """Return the transaction in a document of the provider (dintero-api.md, sections 4 and 5).

    A member of the wrong type counts as missing. Raises `TransientFailure` when it is no transaction at all.
    """
    document = members(json)
    transaction_id = text(document.get("id"), REFERENCE)
    if transaction_id is None:
        raise TransientFailure("Dintero answered with something that is no transaction")
    session = members(document.get("session"))
    status = text(document.get("status"), REFERENCE) or ""
    product_type = text(document.get("payment_product_type"), REFERENCE) or ""
    events = in_order(document.get("events"))
    metadata = members(document.get("metadata"))
    return Transaction(
        id=transaction_id,
        standing=_STANDINGS.get(status, Standing.UNKNOWN),
        status=status,
        product=text(document.get("payment_product"), REFERENCE) or product_type.partition(".")[0],
        product_type=product_type,
        amount=whole(document.get("amount")),
        currency=text(document.get("currency"), REFERENCE),
        read_at=read_at,
        vat_amount=_vat_amount(document, session),
        merchant_reference=text(document.get("merchant_reference"), REFERENCE),
        session_id=text(document.get("session_id"), REFERENCE) or text(session.get("id"), REFERENCE),
        profile_id=_profile_id(metadata, session),
        created_at=moment(document.get("created_at")),
        invoice_number=_first_text((metadata, *_newest(events)), _NUMBER, longest=REFERENCE),
        invoice_url=_first_text((metadata,), _URL, longest=_LONGEST_URL),
        invoice_date=_first_day((*_newest(events), metadata), _DATE),
        due_date=_first_day((*_newest(events), metadata), _DUE_DATE),
        payment_reference=_first_text((metadata, *_newest(events)), *_PAYMENT_REFERENCES, longest=REFERENCE),
        billing=_party(document.get("billing_address")),
        customer=_party(document.get("customer")),
        lines=tuple(_line(item) for item in elements(document.get("items"))),
        shipping=_line(option) if (option := _shipping_option(document, session)) else None,
        voided_at=voided_at(status, events),
        collection=collection(status, events),
        findings=tuple(_findings(document, session, product_type)),
        purchased_at=authorized_at(events) or moment(document.get("created_at")),
        term_findings=tuple(_term_findings(document, session, product_type)),
    )


def _findings(document: Document, session: Document, product_type: str) -> Iterator[ChannelFinding]:
    own = text(members(document.get("metadata")).get(CHANNEL), REFERENCE)
    if own:
        yield ChannelFinding(level=DecidedBy.TRANSACTION, value=own.lower(), where=f"metadata {CHANNEL}")
    if said := said_by_session(session, document, product_type, channel_of):
        yield ChannelFinding(level=DecidedBy.SESSION, value=said.value, where=said.where)


def _term_findings(document: Document, session: Document, product_type: str) -> Iterator[TermFinding]:
    if product_type.endswith(GROUPED):
        for term, read in TERMS.items():
            if said := said_by_session(session, document, product_type, read):
                yield TermFinding(term=term, value=said.value, where=said.where)


def _newest(events: tuple[Event, ...]) -> tuple[Document, ...]:
    return tuple(event.metadata for event in reversed(events))


def _first_text(places: tuple[Document, ...], *names: str, longest: int) -> str | None:
    found = (text(place.get(name), longest) for place in places for name in names)
    return next(filter(None, found), None)


def _first_day(places: tuple[Document, ...], name: str) -> date | None:
    return next(filter(None, (day(place.get(name)) for place in places)), None)


def _profile_id(metadata: Document, session: Document) -> str | None:
    return _first_text((members(session.get("metadata")), metadata), _PROFILE, longest=REFERENCE)


def _party(value: object) -> Party | None:
    given = members(value)
    if not given:
        return None
    country = (text(given.get("country")) or "").upper()
    return Party(
        first_name=text(given.get("first_name")),
        last_name=text(given.get("last_name")),
        business_name=text(given.get("business_name")),
        organization_number=text(given.get("organization_number"), REFERENCE),
        email=text(given.get("email")),
        phone_number=text(given.get("phone_number"), REFERENCE),
        country=country if len(country) == _COUNTRY_LETTERS and country.isascii() and country.isalpha() else None,
        customer_reference=text(given.get("customer_reference")),
    )


def _line(item: object) -> Line:
    """Return an order line; what is none keeps its place, so that nobody takes the others for the whole."""
    given = members(item)
    return Line(
        line_id=text(given.get("line_id")),
        amount=whole(given.get("amount")),
        description=text(given.get("description")) or text(given.get("title")),  # a shipping option has a title
        quantity=quantity(given.get("quantity")),
    )


def _shipping_option(document: Document, session: Document) -> Document:
    order = members(session.get("order"))
    return members(document.get("shipping_option")) or members(order.get("shipping_option"))


def _vat_amount(document: Document, session: Document) -> int | None:
    """Return the VAT of all that is bought: the lines' own when every one has it, else the order's."""
    items = elements(document.get("items"))
    bought = [members(item) for item in items]
    shipping = _shipping_option(document, session)
    if shipping and shipping.get("line_id") not in [item.get("line_id") for item in bought]:
        bought.append(shipping)
    parts = [whole(item.get("vat_amount")) for item in bought]
    known = [part for part in parts if part is not None]
    if items and len(known) == len(parts):
        return sum(known)
    orders = (document, members(session.get("order")))
    return next((vat for order in orders if (vat := whole(order.get("vat_amount"))) is not None), None)
