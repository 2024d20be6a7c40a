"""A document of a merchant's own, read without asking anybody: a transaction, a session, or a request for either."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from service.delivery import ChannelDefault, Explained, Terms, Transaction
from service.dintero.configuration import Unread
from service.dintero.levels import KRAVIA
from service.dintero.ownership import Ownership
from service.dintero.reading import members, objects, text
from service.dintero.transaction import parse_transaction
from service.ordering import Mistaken, in_dinteros_form

PRODUCTS = ("kravia.invoice_b2b", "kravia.invoice_b2c", "kravia.invoice_b2b_grouped")
_UNSENT = "unsent"  # the id of what does not exist yet
_SHORT = 200
_OF_THE_ORDER = ("amount", "currency", "merchant_reference", "items", "billing_address")  # where a transaction has them

Document = Mapping[str, object]


async def explain_document(
    document: object, *, read_at: datetime, default: ChannelDefault, group_terms: Terms
) -> tuple[tuple[Transaction, Explained], ...]:
    """Return what each level says of each product in a document; raises `ValueError` when it is none of ours.

    A session may offer several products; one that configures none may be paid by any, by what its profile says.
    """
    ownership = Ownership(Unread(), default=default, group_terms=group_terms)
    asked = [parse_transaction(one, read_at=read_at) for one in _transactions(members(document))]
    if not asked:
        raise ValueError("is neither a transaction of Dintero's, nor a session, nor a request for one")
    return tuple([(transaction, await ownership.explain(transaction)) for transaction in asked])


def _transactions(document: Document) -> Iterator[Document]:
    """Yield a document as the transaction that it is, or as those that it may become."""
    if text(document.get("payment_product_type"), _SHORT):
        yield {**document, "id": text(document.get("id"), _SHORT) or _UNSENT}
        return
    document = _asked_for(document)
    payment = members(document.get("payment"))
    session = members(document.get("session")) or document
    if not payment and not {"order", "configuration", "profile_id"} & set(session):
        return
    paid_by = text(payment.get("payment_product_type"), _SHORT)
    profile = text(session.get("profile_id"), _SHORT)
    if profile:
        metadata = {**members(session.get("metadata")), "session:profile_id": profile}
        session = {**session, "metadata": metadata}
    bought = {name: one for name, one in members(session.get("order")).items() if name in _OF_THE_ORDER}
    if payment.get("billing_address"):  # it may come with the pay call
        bought["billing_address"] = payment["billing_address"]
    asked = {**bought, "id": _UNSENT, "customer": session.get("customer"), "payment": payment, "session": session}
    for product_type in [paid_by] if paid_by else _offered(session):
        yield {**asked, "payment_product_type": product_type}


def _asked_for(document: Document) -> Document:
    """Return a document in Dintero's form; ours says the same."""
    try:
        return members(in_dinteros_form(document))
    except Mistaken as exc:
        raise ValueError(f"will not do: {exc}") from exc


def _offered(session: Document) -> tuple[str, ...]:
    """Return the products that a session offers by its own configuration, or else all that there are."""
    configuration = members(session.get("configuration"))
    own = members(configuration.get(KRAVIA))
    named = {
        f"{KRAVIA}.{kind}" for kind, given in own.items() if members(given).get("enabled", True) and members(given)
    }
    for option in objects(configuration.get("payment_options")):
        named |= {word for name in ("type", "payment_product_type") if (word := text(option.get(name), _SHORT))}
    return tuple(product_type for product_type in PRODUCTS if product_type in named) or PRODUCTS
