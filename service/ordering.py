"""From a merchant's document to what is sent: a checkout session, or an invoice without the customer.

Pure: nothing is read or sent here. Facts in dintero-api.md, sections 2, 5 and 8.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, time
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from service.delivery import DeliveryFailure
from service.order_checks import BUSINESS, Json, Notes, check_address, check_order

PRODUCTS = ("invoice_b2b", "invoice_b2c", "invoice_b2b_grouped")
CALLBACK_OPTIONS = (("report_event", "VOID"), ("report_event", "CAPTURE"), ("report_error", "true"))
"""What every callback URL of ours asks for: the README's "Register the callback"."""

_CONSUMER = "invoice_b2c"
_GROUPED = "invoice_b2b_grouped"
_LAST_DUE = 365
_DAYS = 14
_CHANNELS = ("kravia", "merchant")
_INTERVALS = ("monthly", "quarterly")
_OPTIONS = (
    *("enabled", "invoice_channel", "days_until_due", "invoice_schedule", "interval"),
    "require_identity_verification",
)
_OURS = ("product", *_OPTIONS)
_SESSION = (
    *("url", "order", "configuration", "profile_id", "customer", "express", "metadata", "expires_at", "remarks"),
    "sub_merchant_id",
)


class Way(StrEnum):
    """How it is created."""

    SESSION = "session"  # the customer pays it in the checkout
    ONE_STEP = "one_step"  # POST /sessions/pay
    TWO_STEP = "two_step"  # a session, then its pay call


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """Something to be created, checked. `body` and `pay` are JSON texts as they are sent."""

    way: Way
    reference: str  # the merchant's
    amount: int  # minor units
    currency: str  # ISO 4217
    body: str  # of the first call
    product_type: str | None = None  # "kravia.invoice_b2b"; None for a session that offers several
    pay: str | None = None  # of the second call of two
    profile: bool = False  # the session is of a profile: POST /sessions-profile
    warnings: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that it is posted to, in turn; `{id}` stands for the session's."""
        if self.way is Way.ONE_STEP:
            return ("sessions/pay",)
        opened = "sessions-profile" if self.profile else "sessions"
        return (opened, "sessions/{id}/pay") if self.way is Way.TWO_STEP else (opened,)

    def toggles(self, *, again: bool = False, opening: bool = False) -> str | None:
        """Return what Dintero is asked to be strict about; `again`: after a failure under the same reference.

        `opening`: in the first call of two. A session that nobody paid must not take the reference from the next.
        """
        if self.way is Way.SESSION:
            return None if '"items":[]' in self.body else "strict-session-amounts"
        again = again or (opening and self.way is Way.TWO_STEP)
        return "strict-success-merchant-reference" if again else "strict-merchant-reference"


class Result(StrEnum):
    """What came of a creation."""

    CREATED = "created"
    EXISTED = "existed"  # the same was there before: nothing was created now
    FAILED = "failed"
    UNCONFIRMED = "unconfirmed"  # handed over, the answer was lost, and a look has not found it


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """What is known of a creation. `reason` is one line, scrubbed; `status` is the provider's own word."""

    result: Result
    transaction_id: str | None = None
    status: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A checkout session. `url` is where the customer pays."""

    id: str
    url: str | None


class NotCreated(DeliveryFailure):
    """Nothing was created: it was refused or not handed over.

    `for_good`: for what it says. `ours`: as all would be that we ask just now. Otherwise it may do another time.
    """

    def __init__(self, reason: str, *, ours: bool = False, for_good: bool = False) -> None:
        super().__init__(reason)
        self.ours = ours
        self.for_good = for_good


class Mistaken(Exception):
    """The document will not do. Each of `mistakes` is a line that begins with a path into it."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def checkout_session(document: object, *, public_url: tuple[str, ...], profile: str | None = None) -> Creation:
    """Return a checkout session, in Dintero's own form or ours; raises `Mistaken` with all mistakes.

    `public_url`: where we are called; the first is filled in, and any of them is ours.
    """
    notes = Notes()
    given = _top(notes, document)
    notes.spelling(given, (*_SESSION, *_OURS), "")
    session = {name: value for name, value in given.items() if name not in _OURS}
    if (chosen := profile or given.get("profile_id")) is not None:
        session["profile_id"] = notes.text(chosen, "profile_id")
    session["configuration"] = _configuration(notes, given)
    url = notes.members(given.get("url"), "url")
    if notes.text(url.get("return_url"), "url.return_url"):
        _https(notes, url["return_url"], "url.return_url")
    session["url"] = url | {"callback_url": _callback(notes, url.get("callback_url"), "url.callback_url", public_url)}
    session["order"] = order = check_order(notes, given.get("order"), "order", lines_needed=False)
    if "billing_address" in order:
        business = _is_business(session["configuration"], order["billing_address"])
        address = check_address(notes, order["billing_address"], "order.billing_address", business=business)
        order["billing_address"] = address
    return _made(notes, Way.SESSION, session, order, profile=True)


def merchant_invoice(
    document: object, *, public_url: tuple[str, ...], two_step: bool = False, profile: str | None = None
) -> Creation:
    """Return an invoice that the merchant initiates, in Dintero's own form or ours; raises `Mistaken`.

    `profile` is for two steps: the session is then made of that profile. `public_url` as in `checkout_session`.
    """
    notes = Notes()
    given = _top(notes, document)
    whole = "payment" in given or "session" in given
    payment = notes.members(given.get("payment"), "payment") if whole else {}
    session = notes.members(given.get("session"), "session") if whole else dict(given)
    notes.spelling(given, ("payment", "session", *_OURS) if whole else (*_SESSION, *_OURS), "")
    at = "session." if whole else ""
    product, options = _terms(notes, given, payment, session, at)
    order = check_order(notes, session.get("order"), f"{at}order", lines_needed=True)
    address_at = f"{at}order.billing_address"
    address = check_address(notes, order.pop("billing_address", None), address_at, business=product != _CONSUMER)
    url = notes.members(session.get("url"), f"{at}url")
    url["callback_url"] = _callback(notes, url.get("callback_url"), f"{at}url.callback_url", public_url)
    kept = {name: value for name, value in session.items() if name not in (*_OURS, "configuration")}
    kept |= {"url": url, "order": order}
    if two_step:
        kept["configuration"] = _configured(session, product, options | {"require_identity_verification": False})
        kept["url"] = {"return_url": public_url[0], **url}  # nobody comes back, but a session has one
        return _two_steps(notes, product, options, kept, address, profile=profile)
    if profile is not None:
        notes.wrong("--profile", "needs --two-step: one call knows no profile")
    order["billing_address"] = address
    told: dict[str, Any] = {name: options[name] for name in ("days_until_due", "invoice_channel") if name in options}
    payment = {name: value for name, value in payment.items() if name not in (*_OPTIONS, "payment_product_type")}
    payment |= {"payment_product_type": f"kravia.{product}", "operation": "invoice_payment", **told}
    placeless = (name for name in options if name not in _OPTIONS or (product, name) == (_GROUPED, "invoice_schedule"))
    if configuration := _configured(session, product, {name: options[name] for name in placeless}):
        kept["configuration"] = configuration  # what the payment has no place for
    return _made(notes, Way.ONE_STEP, {"payment": payment, "session": kept}, order, product=product)


def in_dinteros_form(document: object) -> object:
    """Return a document of ours with its product's options where Dintero's session has them, any other as it is.

    For telling beforehand what it asks for, whatever else is wrong with it: `Mistaken` is raised of its product alone.
    """
    notes = Notes()
    given = notes.members(document, "")
    if not any(name in given for name in _OURS):
        return document
    whole = "payment" in given or "session" in given
    session = notes.members(given.get("session") if whole else given, "session")
    product, options = _terms(notes, given, notes.members(given.get("payment"), "payment"), session, "")
    if wrong := tuple(one for one in notes.mistakes if one.startswith(("product:", "payment.payment_product_type:"))):
        raise Mistaken(wrong)
    configuration = _configured(session, product, options)
    session = {name: value for name, value in session.items() if name not in _OURS} | {"configuration": configuration}
    return {"payment": given.get("payment"), "session": session} if whole else session


def _is_business(configuration: Json, address: Any) -> bool:
    """Tell whose address it is: by the products that are offered, or where they leave it open, by its own fields."""
    offered = {name for name in configuration.get("kravia", {}) if name in PRODUCTS}
    if _CONSUMER not in offered and offered:
        return True
    return offered != {_CONSUMER} and isinstance(address, dict) and any(address.get(name) for name in BUSINESS)


def _configured(session: Json, product: str, options: Json) -> Json:
    """Return a session's configuration with these options of the product; what else it says stays as it is."""
    parts = Notes()  # what is wrong with them was noted with the terms
    configuration = parts.members(session.get("configuration"), "")
    given = parts.members(configuration.pop("kravia", None), "")
    kravia = {name: value for name, value in given.items() if name != product}
    if options:
        kravia |= {product: {"type": "payment_product_type", **options}}
    if kravia.keys() - {"type"}:
        configuration["kravia"] = {"type": "payment_type", **kravia}
    return configuration


def _two_steps(
    notes: Notes, product: str, options: Json, session: Json, address: Json, *, profile: str | None
) -> Creation:
    """Return the session, which asks nobody to identify themselves, and its pay call, which has the address."""
    if profile is not None:
        session["profile_id"] = profile
    pay = {"payment_product_type": f"kravia.{product}", "billing_address": address}
    pay |= {name: options[name] for name in ("days_until_due", "invoice_channel") if name in options}
    of_profile = session.get("profile_id") is not None
    return _made(notes, Way.TWO_STEP, session, session["order"], product=product, pay=pay, profile=of_profile)


def _made(notes: Notes, way: Way, body: Json, order: Json, **more: Any) -> Creation:
    if notes.mistakes:
        raise Mistaken(tuple(notes.mistakes))
    product, pay = more.get("product"), more.get("pay")
    return Creation(
        way=way,
        reference=order["merchant_reference"],
        amount=order["amount"],
        currency=order["currency"],
        body=_json(body),
        product_type=product and f"kravia.{product}",
        pay=_json(pay) if pay else None,
        profile=more.get("profile", False),
        warnings=tuple(notes.warnings),
    )


def _iso(value: object) -> str:
    """Return what TOML has and JSON has not, a time, as ISO 8601 has it."""
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _json(document: Json) -> str:
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_iso)
        text.encode()
    except ValueError as exc:  # not a number, infinity, half a character: in what we do not look at
        raise Mistaken((f"the document: holds what JSON cannot carry ({type(exc).__name__})",)) from exc
    return text


def _top(notes: Notes, document: object) -> Json:
    if not isinstance(document, dict):
        raise Mistaken(("the document: must be an object (a table)",))
    return notes.members(document, "")


# --- who delivers, and on what terms ---------------------------------------------------------------------------------


def _configuration(notes: Notes, given: Json) -> Json:
    """Return a session's configuration with each of our products in it checked and completed."""
    configuration = notes.members(given.get("configuration"), "configuration")
    kravia = notes.members(configuration.get("kravia"), "configuration.kravia")
    path = "configuration.kravia"
    if any(name in given for name in _OURS):
        product = _product(notes, given.get("product"), "product")
        if product in kravia:
            notes.wrong("product", f"is in {path}, too: give its options in one of the two places")
        kravia = {**kravia, product: {name: given[name] for name in _OPTIONS if name in given}}
        path = ""
    notes.spelling(kravia, ("type", *PRODUCTS), "configuration.kravia")
    products = [name for name in kravia if name in PRODUCTS]
    if not products:
        return configuration  # the profile says
    for name in products:
        options = notes.members(kravia[name], f"configuration.kravia.{name}")
        at = f"{path}.{name}." if path else ""
        kravia[name] = {"type": "payment_product_type", **_options(notes, name, options, at, checkout=True)}
    return {**configuration, "kravia": {"type": "payment_type", **kravia}}


def _terms(notes: Notes, given: Json, payment: Json, session: Json, at: str) -> tuple[str, Json]:
    """Return an invoice's product and options, from wherever the document has them; the payment's own word wins."""
    configured = notes.members(session.get("configuration"), f"{at}configuration")
    kravia = notes.members(configured.get("kravia"), f"{at}configuration.kravia")
    products = [name for name in kravia if name in PRODUCTS]
    stated = payment.get("payment_product_type")
    if stated is not None:
        product, path = _product(notes, stated, "payment.payment_product_type", "kravia."), "payment."
    elif "product" not in given and len(products) == 1:
        product, path = products[0], f"{at}configuration.kravia.{products[0]}."
    else:
        product, path = _product(notes, given.get("product"), "product"), ""
    found = notes.members(kravia.get(product), f"{at}configuration.kravia.{product}")
    for place in (given, payment):
        found |= {name: place[name] for name in _OPTIONS if name in place}
    return product, _options(notes, product, found, path, checkout=False)


def _product(notes: Notes, value: Any, path: str, prefix: str = "") -> str:
    for product in PRODUCTS:
        if value in (f"{prefix}{product}", f"kravia.{product}"):
            return product
    notes.wrong(path, f"must be one of {', '.join(prefix + product for product in PRODUCTS)}")
    return PRODUCTS[0]


def _options(notes: Notes, product: str, given: Json, at: str, *, checkout: bool) -> Json:
    """Return a product's options; a channel that is left out stays out, so that the next level decides."""
    notes.spelling(given, ("type", "payability", *_OPTIONS), at.rstrip("."))
    options = {name: value for name, value in given.items() if name not in ("interval", "type")}
    options["enabled"] = _truth(notes, given.get("enabled", True), f"{at}enabled")
    days = _DAYS if given.get("days_until_due") is None else given["days_until_due"]
    options["days_until_due"] = notes.whole(days, f"{at}days_until_due", least=0, most=_LAST_DUE)
    channel = given.get("invoice_channel")
    if channel is not None and channel not in _CHANNELS:
        notes.wrong(f"{at}invoice_channel", f"must be {' or '.join(_CHANNELS)}")
    _schedule(notes, product, given, options, at)
    verified = _truth(notes, given.get("require_identity_verification", True), f"{at}require_identity_verification")
    options["require_identity_verification"] = verified
    if checkout and product == _CONSUMER and not verified and channel == "kravia":
        notes.wrong(f"{at}require_identity_verification", "may be false only where the merchant delivers")
    if checkout and product == _GROUPED and channel is not None:
        notes.warnings.append(f"{at}invoice_channel: Dintero's documents list none for grouped invoices at checkout")
    return options


def _schedule(notes: Notes, product: str, given: Json, options: Json, at: str) -> None:
    schedule = notes.members(given.get("invoice_schedule"), f"{at}invoice_schedule")
    interval = given.get("interval", schedule.get("interval"))
    if product != _GROUPED:
        if interval is not None or schedule:
            notes.wrong(f"{at}invoice_schedule", f"is for {_GROUPED} only")
        return
    interval = "monthly" if interval is None else interval
    if interval not in _INTERVALS:
        notes.wrong(f"{at}invoice_schedule.interval", f"must be {' or '.join(_INTERVALS)}")
    options["invoice_schedule"] = {**schedule, "interval": interval}


def _truth(notes: Notes, value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        notes.wrong(path, "must be true or false")
        return True
    return value


# --- where Dintero calls ---------------------------------------------------------------------------------------------


def _callback(notes: Notes, given: Any, path: str, public_url: tuple[str, ...]) -> str:
    """Return the callback URL: our own with all its options, or another as it is, which is told."""
    ours = [f"{url.rstrip('/')}/callback" for url in public_url]
    if given is None:
        return f"{ours[0]}?{urlencode(CALLBACK_OPTIONS)}"
    if not _https(notes, given, path):
        return ""
    bare, _, query = str(given).partition("?")
    if bare not in ours:
        notes.warnings.append(f"{path} is not {' or '.join(ours)}: this service will not be called")
        return str(given)
    parameters = parse_qsl(query, keep_blank_values=True)
    added = [option for option in CALLBACK_OPTIONS if option not in parameters]
    return f"{bare}?{'&'.join(filter(None, (query, urlencode(added))))}"


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _https(notes: Notes, value: Any, path: str) -> bool:
    """Tell whether it is an address that Dintero can call; http is for a simulated provider on this machine."""
    fitting: Callable[[Any], bool] = lambda parts: (  # noqa: E731  one expression of one name
        bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK))
    )
    try:
        right = isinstance(value, str) and value.isprintable() and fitting(urlsplit(value))
    except ValueError:
        right = False
    if not right:
        notes.wrong(path, "must be an https address")
    return right
