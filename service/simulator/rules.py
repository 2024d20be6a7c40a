"""What the provider accepts: the checks of a payment and of a capture, who delivers, and the filters of a listing."""

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from service.simulator.documents import Json, Personality, Refusal, collection_begun, invalid

_OLDER_NAMES = {"provider": "kravia"}
_LONGEST_PAGE = 100
_LAST_DUE = 365
_AMONG = (
    "id",
    "status",
    "payment_product",
    "payment_product_type",
    "session_id",
    "currency",
    "merchant_reference",
    "merchant_reference_2",
)


def whole(value: Any) -> bool:
    """Whether a JSON value is an integer; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_session(body: Any) -> Json:
    """Return the body of a new session, or refuse it."""
    if not isinstance(body, dict):
        raise invalid("a JSON object is required")
    for name in ("url", "customer", "configuration"):
        if not isinstance(body.get(name) or {}, dict):
            raise invalid(f"{name} must be an object")
    callback_url = (body.get("url") or {}).get("callback_url") or "https://"
    if not str(callback_url).startswith(("https://", "http://")):
        raise invalid("url.callback_url must be a URL")
    return body


def check_order(order: Any) -> Json:
    """Return the order of a session, or refuse it."""
    if not isinstance(order, dict):
        raise invalid("order is required")
    if not whole(order.get("amount")) or order["amount"] <= 0:
        raise invalid("order.amount must be an integer above 0")
    if not isinstance(order.get("currency"), str):
        raise invalid("order.currency is required")
    if not isinstance(order.get("items", []), list):
        raise invalid("order.items must be an array")
    return order


def check_payment(payment: Any, *, due_required: bool) -> Json:
    """Return the payment of a pay call, or refuse it."""
    if not isinstance(payment, dict) or "." not in str(payment.get("payment_product_type", "")):
        raise invalid("payment.payment_product_type is required")
    if not payment["payment_product_type"].startswith("kravia."):
        return payment
    if payment.get("operation", "invoice_payment") not in ("invoice_payment", "invoice_purchase"):
        raise invalid("payment.operation must be invoice_payment")
    due: Any = payment.get("days_until_due", None if due_required else 14)
    if not whole(due) or not 0 <= due <= _LAST_DUE:
        raise invalid(f"payment.days_until_due must be 0-{_LAST_DUE}")
    return payment


def check_capture(transaction: Json, body: Any, personality: Personality) -> None:
    """Refuse a capture that is not of the whole amount, whose lines do not add up, or that comes a second time."""
    if not isinstance(body, dict) or not whole(body.get("amount")):
        raise invalid("amount is required")
    _check_items(transaction, body)
    if transaction["status"] != "AUTHORIZED" or collection_begun(transaction):
        conflict = 409 if personality == "current" else 400
        raise Refusal(conflict, f"Transaction can not be captured in status {transaction['status']}")
    if body["amount"] != transaction.get("amount"):
        raise invalid("amount must be the whole amount of the transaction")


def _check_items(transaction: Json, body: Json) -> None:
    items = body.get("items")
    if items is None:
        return
    if not isinstance(items, list) or not all(isinstance(item, dict) and whole(item.get("amount")) for item in items):
        raise invalid("items must have line_id and amount")
    asked = [item.get("line_id") for item in items]
    if len(set(asked)) != len(asked):
        raise invalid("items.line_id must be unique")
    known = {item.get("line_id") for item in transaction.get("items") or ()}
    known.add((transaction.get("shipping_option") or {}).get("line_id"))
    if any(line_id is None or line_id not in known for line_id in asked):
        raise invalid("items.line_id must be one of the transaction")
    if sum(item["amount"] for item in items) != body["amount"]:
        raise invalid("items must add up to amount")


def channel_of(product_type: str, payment: Json, *configurations: Any) -> str:
    """Return who delivers: the payment's own value, then each configuration's, then `kravia` (dintero-api.md, 5)."""
    product = product_type.partition(".")[2]
    found = [_stated(payment)]
    for configuration in configurations:
        found.append(_stated(inside(inside(configuration, "kravia"), product)))
        options = inside(configuration, "payment_options")
        fitting = [option for option in options or () if inside(option, "type") == product_type]
        found += [_stated(inside(option, "details")) for option in fitting]
    return next((value for value in found if value), "kravia")


def inside(document: Any, name: str) -> Any:
    """Return a value of an object, or None when there is no such object or value."""
    return document.get(name) if isinstance(document, dict) else None


def _stated(details: Any) -> str | None:
    value = inside(details, "invoice_channel") or inside(details, "invoice_delivery_method")
    return _OLDER_NAMES.get(value, value) if isinstance(value, str) else None


def page(transactions: Sequence[Json], query: Mapping[str, Sequence[str]]) -> list[Json]:
    """Return those of the transactions, in the order given, that a listing's query asks for."""
    limit = _limit(query)
    after = (query.get("starting_after") or [""])[0]
    if after:
        ids = [transaction["id"] for transaction in transactions]
        if after not in ids:
            raise invalid("starting_after is not a transaction")
        transactions = transactions[ids.index(after) + 1 :]
    tests = _tests(query)
    return [transaction for transaction in transactions if all(test(transaction) for test in tests)][:limit]


def _limit(query: Mapping[str, Sequence[str]]) -> int:
    text = (query.get("limit") or ["10"])[0]
    if not text.isdecimal() or not 1 <= int(text) <= _LONGEST_PAGE:
        raise invalid(f"limit must be 1-{_LONGEST_PAGE}")
    return int(text)


def _tests(query: Mapping[str, Sequence[str]]) -> list[Callable[[Json], bool]]:
    tests = [_among(name, query[name]) for name in _AMONG if query.get(name)]
    if wanted := query.get("amount"):
        tests.append(_among("amount", [_integer("amount", wanted[0])]))
    for name, parse in (("created_at", _moment), ("amount", _integer)):
        for suffix, compare in ((".gte", operator.ge), (".lte", operator.le)):
            if wanted := query.get(name + suffix):
                tests.append(_beyond(name, parse, compare, parse(name + suffix, wanted[0])))
    return tests


def _among(name: str, wanted: Sequence[Any]) -> Callable[[Json], bool]:
    return lambda transaction: transaction.get(name) in wanted


def _beyond(
    name: str, parse: Callable[[str, str], Any], compare: Callable[[Any, Any], bool], edge: Any
) -> Callable[[Json], bool]:
    def test(transaction: Json) -> bool:
        value = transaction.get(name)
        return value is not None and compare(parse(name, str(value)), edge)

    return test


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as exc:
        raise invalid(f"{name} must be an integer") from exc


def _moment(name: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise invalid(f"{name} must be ISO 8601") from exc
    return at if at.tzinfo else at.replace(tzinfo=UTC)
