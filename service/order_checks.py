"""What an order and a billing address must be before they are sent; every mistake is noted with its path.

Each function takes a part of a merchant's document and returns it as it is sent: cleaned and with what may be left out.
"""

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, TypeAlias

from service.addresses import mail_address
from service.organizations import organization_number

Json: TypeAlias = dict[str, Any]

LONGEST_REFERENCE = 35
"""Characters of a reference that Kravia takes (dintero-api.md, 8)."""

_LARGEST = 2**53 - 1
_LONGEST_TEXT = 500
_KRAVIA_COUNTRIES = ("NO", "SE", "FI")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_POSTAL_CODES = {"NO": r"[0-9]{4}", "SE": r"[0-9]{3} ?[0-9]{2}", "FI": r"[0-9]{5}", "DK": r"[0-9]{4}"}

PERSON = ("first_name", "last_name", "email", "phone_number", "address_line", "postal_code", "postal_place", "country")
"""What every billing address has (dintero-api.md, 8)."""

BUSINESS = ("business_name", "organization_number")
"""What a business's has beside."""

_ADDRESS = (
    *PERSON,
    *BUSINESS,
    *("customer_reference", "address_line_2", "co_address", "cost_center", "comment", "organization_type"),
    *("latitude", "longitude"),
)
_ORDER = (
    *("amount", "currency", "vat_amount", "merchant_reference", "merchant_reference_2", "items", "billing_address"),
    *("shipping_address", "shipping_option", "discount_codes", "store", "partial_payment"),
)
_ITEM = (
    *("id", "line_id", "description", "quantity", "amount", "vat_amount", "vat", "groups", "type"),
    *("eligible_for_discount", "discount_lines", "is_change", "thumbnail_url", "unit", "url"),
)


@dataclass(slots=True)
class Notes:
    """What was found on the way through a document. A mistake stops all; a warning is only told."""

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def wrong(self, path: str, why: str) -> None:
        self.mistakes.append(f"{path}: {why}")

    def members(self, value: Any, path: str) -> Json:
        """Return an object's members; a note, and none, for anything else but nothing."""
        if value is not None and not isinstance(value, dict):
            self.wrong(path, "must be an object (a table)")
        return dict(value) if isinstance(value, dict) else {}

    def spelling(self, document: Json, known: Collection[str], path: str) -> None:
        """Note what is hardly another name than one of ours. Others pass: Dintero's documents know more than we."""
        for name in document:
            near = () if name in known else difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            if near and near[0] not in document:
                self.wrong(f"{path}.{name}".lstrip("."), f"is unknown; is {near[0]} meant?")

    def whole(self, value: Any, path: str, *, least: int = -_LARGEST, most: int = _LARGEST) -> int | None:
        """Return a whole number; a note, and None, for anything else."""
        if type(value) is not int:
            given = "is missing" if value is None else "is no whole number"
            self.wrong(path, f"{given}; money is in minor units, 29900 for 299.00" if "amount" in path else given)
        elif not least <= value <= most:
            self.wrong(path, f"must be at least {least}" if value < least else f"must be at most {most}")
        else:
            return value
        return None

    def text(self, value: Any, path: str, *, longest: int = _LONGEST_TEXT) -> str | None:
        """Return a text without white space around it; a note, and None, where there is none."""
        if not isinstance(value, str) or not value.strip():
            self.wrong(path, "is missing" if value is None or value == "" else "must be a text that is not empty")
        elif not value.isprintable():
            self.wrong(path, "holds a line break or another control character")
        elif len(value.strip()) > longest:
            self.wrong(path, f"has {len(value.strip())} characters; at most {longest} are taken")
        else:
            return value.strip()
        return None


def check_order(notes: Notes, order: Any, path: str, *, lines_needed: bool) -> Json:
    """Return an order without its addresses checked; its items must add up to its amount."""
    if order is None:
        notes.wrong(path, "is missing")
        return {}
    checked: Json = notes.members(order, path)
    notes.spelling(checked, _ORDER, path)
    amount = notes.whole(checked.get("amount"), f"{path}.amount", least=1)
    if not re.fullmatch(r"[A-Z]{3}", str(checked.get("currency"))):
        notes.wrong(f"{path}.currency", "must be three capital letters, such as NOK")
    reference = f"{path}.merchant_reference"
    checked["merchant_reference"] = notes.text(checked.get("merchant_reference"), reference, longest=LONGEST_REFERENCE)
    if checked.get("merchant_reference_2") is not None:
        second = notes.text(checked["merchant_reference_2"], f"{path}.merchant_reference_2", longest=LONGEST_REFERENCE)
        checked["merchant_reference_2"] = second
    checked["items"] = _items(notes, checked.get("items"), f"{path}.items", needed=lines_needed)
    if amount is not None:
        _add_up(notes, checked, amount, path)
    return checked


def _items(notes: Notes, items: Any, path: str, *, needed: bool) -> list[Json]:
    if items is not None and not isinstance(items, list):
        notes.wrong(path, "must be a list")
        return []
    if not items and needed:
        notes.wrong(path, "is missing; an invoice has at least one line")
    elif not items:
        notes.warnings.append(f"{path} is empty: the invoice will have no lines")
    checked = [_item(notes, item, f"{path}[{place}]", place) for place, item in enumerate(items or ())]
    ids = [item.get("line_id") for item in checked]
    for place, line_id in enumerate(ids):
        if line_id in ids[:place]:
            notes.wrong(f"{path}[{place}].line_id", "is another item's, too; each needs its own to be captured")
    return checked


def _item(notes: Notes, item: Any, path: str, place: int) -> Json:
    if not isinstance(item, dict):
        notes.wrong(path, "must be an object (a table)")
        return {"line_id": f"?{place}"}
    notes.spelling(item, _ITEM, path)
    given = {name: value for name, value in item.items() if value is not None}
    line_id = str(given.get("line_id", place + 1))
    line: Json = {"quantity": 1, **given, "line_id": line_id, "id": str(given.get("id", line_id))}
    line["description"] = notes.text(line.get("description"), f"{path}.description")
    quantity = line["quantity"]
    if isinstance(quantity, bool) or not isinstance(quantity, int | float) or not 0 < quantity <= _LARGEST:
        notes.wrong(f"{path}.quantity", "must be a number above 0")
    amount = notes.whole(line.get("amount"), f"{path}.amount")
    vat = line.get("vat")
    if vat is not None and (isinstance(vat, bool) or not isinstance(vat, int | float) or not 0 <= vat <= 100):  # noqa: PLR2004  per cent
        notes.wrong(f"{path}.vat", "must be a percentage, 0 to 100")
    elif vat is not None and amount is not None and line.get("vat_amount") is None:
        line["vat_amount"] = contained_vat(amount, Decimal(str(vat)))
    if line.get("vat_amount") is not None:
        vat_amount = notes.whole(line["vat_amount"], f"{path}.vat_amount")
        if amount is not None and vat_amount is not None and abs(vat_amount) > abs(amount):
            notes.wrong(f"{path}.vat_amount", "is more than the amount, which contains it")
    return line


def contained_vat(amount: int, per_cent: Decimal) -> int:
    """Return what an amount contains of VAT, both in minor units, half a unit rounded up."""
    return int((amount * per_cent / (100 + per_cent)).to_integral_value(ROUND_HALF_UP))


def _add_up(notes: Notes, order: Json, amount: int, path: str) -> None:
    """Note sums that do not come out. Shipping counts beside the items unless it is one of them."""
    lines = list(order["items"])
    shipping = order.get("shipping_option")
    if isinstance(shipping, dict) and shipping.get("line_id") not in [line.get("line_id") for line in lines]:
        lines.append(shipping)
    amounts = [line.get("amount") for line in lines]
    if lines and all(type(one) is int for one in amounts) and sum(amounts) != amount:
        notes.wrong(f"{path}.items", f"add up to {sum(amounts)}, and {path}.amount is {amount}")
    vats = [line.get("vat_amount") for line in lines]
    known = bool(vats) and all(type(one) is int for one in vats)
    if order.get("vat_amount") is None:
        if known:
            order["vat_amount"] = sum(vats)
        return
    stated = notes.whole(order["vat_amount"], f"{path}.vat_amount", least=0, most=amount)
    if stated is not None and known and sum(vats) != stated:
        notes.wrong(f"{path}.vat_amount", f"is {stated}, and the items' add up to {sum(vats)}")


def check_address(notes: Notes, address: Any, path: str, *, business: bool) -> Json:
    """Return a billing address; for a `business` with its name and organisation number."""
    if address is None:
        notes.wrong(path, "is missing")
        return {}
    address = notes.members(address, path)
    notes.spelling(address, _ADDRESS, path)
    for name in (*(BUSINESS if business else ()), *PERSON):
        address[name] = notes.text(address.get(name), f"{path}.{name}")
    if not business:
        for name in BUSINESS:
            if address.get(name):
                notes.wrong(f"{path}.{name}", "is for businesses, and this invoice is a consumer's")
    if (reference := address.get("customer_reference")) is not None:
        empty = isinstance(reference, str) and not reference.strip()
        text = None if empty else notes.text(reference, f"{path}.customer_reference", longest=LONGEST_REFERENCE)
        address["customer_reference"] = text
    _forms(notes, address, path)
    return {name: value for name, value in address.items() if value is not None}


def _forms(notes: Notes, address: Json, path: str) -> None:
    """Note what is there and is not in its form."""
    country = address.get("country")
    if country and not re.fullmatch(r"[A-Z]{2}", country):
        notes.wrong(f"{path}.country", "must be two capital letters, such as NO")
        country = None
    if country and country not in _KRAVIA_COUNTRIES:
        notes.warnings.append(f"{path}.country: Kravia is documented for {', '.join(_KRAVIA_COUNTRIES)} only")
    form = _POSTAL_CODES.get(country or "")
    if form and address.get("postal_code") and not re.fullmatch(form, address["postal_code"]):
        notes.wrong(f"{path}.postal_code", f"is none of {country}")
    if address.get("phone_number") and not _PHONE.fullmatch(address["phone_number"]):
        notes.wrong(f"{path}.phone_number", "must be a number with its country's code, such as +4799999999")
    if address.get("email"):
        _instead(notes, address, "email", path, mail_address)
    if country and address.get("organization_number"):
        number = "organization_number"
        _instead(notes, address, number, path, lambda text: organization_number(text, country))


def _instead(notes: Notes, address: Json, name: str, path: str, parse: Any) -> None:
    try:
        address[name] = parse(address[name])
    except ValueError as exc:
        notes.wrong(f"{path}.{name}", str(exc))
