"""Creating sessions: what a toggle in the request refuses, and what a session then states about its payments."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from service.simulator.documents import Json, invalid
from service.simulator.rules import channel_of, inside, whole

STRICT = "strict-merchant-reference"
STRICT_SUCCESS = "strict-success-merchant-reference"
STRICT_AMOUNTS = "strict-session-amounts"
_NO_SUCCESS = ("INITIATED", "FAILED", "DECLINED")
_DAYS = 14
_INTERVALS = ("monthly", "quarterly")


def toggles_of(header: str) -> frozenset[str]:
    """Return what a `Dintero-Feature-Toggles` header switches on."""
    return frozenset(filter(None, (word.strip() for word in header.split(","))))


def check_toggles(
    toggles: Collection[str], order: Json, sessions: Mapping[str, Json], transactions: Mapping[str, Json]
) -> None:
    """Refuse, with 400 (dintero-api.md, 1), a new session that a toggle forbids."""
    reference = order.get("merchant_reference")
    used = [session for session in sessions.values() if session["order"].get("merchant_reference") == reference]
    if reference and STRICT in toggles and used:
        raise invalid("merchant_reference has already been used")
    if reference and STRICT_SUCCESS in toggles and _succeeded(used, transactions):
        raise invalid("merchant_reference has already been used by a successful session")
    if STRICT_AMOUNTS in toggles:
        _check_amounts(order)


def _succeeded(sessions: Iterable[Json], transactions: Mapping[str, Json]) -> bool:
    made = (transactions.get(session.get("transaction_id", "")) for session in sessions)
    return any(transaction["status"] not in _NO_SUCCESS for transaction in made if transaction is not None)


def _check_amounts(order: Json) -> None:
    amounts = [item.get("amount") for item in order.get("items") or () if isinstance(item, dict)]
    if not all(whole(amount) for amount in amounts) or sum(filter(None, amounts)) != order["amount"]:
        raise invalid("order.items must add up to order.amount")


def check_configuration(configuration: Json) -> Json:
    """Return a session's configuration as it is shown, or refuse it: each Kravia product has its `type` (section 5)."""
    kravia = configuration.get("kravia")
    if not isinstance(kravia, dict):
        return configuration
    for product, details in kravia.items():
        if isinstance(details, dict):
            _check_details(product, details)
    shown = {
        name: {"type": "payment_product_type", **details} if isinstance(details, dict) else details
        for name, details in kravia.items()
    }
    return configuration | {"kravia": {"type": "payment_type", **shown}}


def _check_details(product: str, details: Json) -> None:
    where = f"configuration.kravia.{product}"
    due = details.get("days_until_due", _DAYS)
    if not whole(due) or not 0 <= due <= 365:  # noqa: PLR2004  days, dintero-api.md section 8
        raise invalid(f"{where}.days_until_due must be 0-365")
    schedule = details.get("invoice_schedule", {})
    if not isinstance(schedule, dict) or schedule.get("interval", _INTERVALS[0]) not in _INTERVALS:
        raise invalid(f"{where}.invoice_schedule.interval must be monthly or quarterly")
    if details.get("invoice_channel", "kravia") not in ("kravia", "merchant"):
        raise invalid(f"{where}.invoice_channel must be kravia or merchant")


def state_payment(session: Json, payment: Json) -> None:
    """Have a session, made and paid in one step, state what its payment was asked for with."""
    kind, _, product = payment["payment_product_type"].partition(".")
    stated = {
        key: value
        for key, value in payment.items()
        if key not in ("payment_product_type", "operation", "billing_address")
    }
    family = {"type": "payment_type", **session["configuration"].get(kind, {})}
    family[product] = {"type": "payment_product_type", **(family.get(product) or {}), **stated}
    session["configuration"] = session["configuration"] | {kind: family}


def agreed(payment: Json, *configurations: Any) -> Json:
    """Return what holds for a payment: channel, days until due and interval, each from the nearest level that has it.

    The levels are the payment's own, then each configuration's: session, profile, checkout (dintero-api.md, 5).
    """
    product_type = payment["payment_product_type"]
    levels = [payment, *(_details(configuration, product_type) for configuration in configurations)]
    due = next((days for level in levels if (days := inside(level, "days_until_due")) is not None), _DAYS)
    intervals = (inside(inside(level, "invoice_schedule"), "interval") for level in levels)
    return {
        "channel": channel_of(product_type, payment, *configurations),
        "days_until_due": due,
        "interval": next(filter(None, intervals), _INTERVALS[0]),
    }


def _details(configuration: Any, product_type: str) -> Json:
    """Return a configuration's details of a product, whether by name or among its payment options."""
    kind, _, product = product_type.partition(".")
    found: Json = {}
    for option in inside(configuration, "payment_options") or ():
        if inside(option, "type") == product_type:
            found |= inside(option, "details") or {}
    return found | (inside(inside(configuration, kind), product) or {})
