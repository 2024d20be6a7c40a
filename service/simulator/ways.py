"""The ways by which the demo's customers get their invoices: what is sold so that the service chooses each, and why."""

import math
from typing import Literal

from service.simulator.documents import Json
from service.simulator.sales import Country
from service.simulator.sms_wire import Kind

Way = Literal["email", "refused", "sms", "erp", "all"]
WAYS: dict[Way, str] = {
    "email": "e-mail",
    "refused": "e-mail; refused, so SMS",
    "sms": "SMS (the customer gave no e-mail address)",
    "erp": "ERP (an order of 100,000 or more)",
    "all": "e-mail, SMS and ERP (1,000,000 or more)",
}
"""Each way, as the form words it."""
PLAYED: tuple[Way, ...] = ("email", "refused", "sms", "erp")
"""Those that the demo shows by itself."""

PROVIDERS: dict[Country, Kind] = {"NO": "link", "SE": "46elks", "FI": "sinch", "DK": "gatewayapi", "DE": "twilio"}
"""Who sends the texts to a country, so that all five are seen."""

_LARGE = 100_000_00  # in minor units, of whatever currency
_HUGE = 1_000_000_00


def routes_toml() -> str:
    """Return the service's ROUTES_FILE."""
    rules = [
        f'[[rule]]\nname = "{country}, very large orders"\ncountry = "{country}"\nmin_amount = {_HUGE}\n'
        f'channels = ["email"]\ncourtesy = ["sms-{kind}", "http"]\n'
        for country, kind in PROVIDERS.items()
    ]
    rules += [f'[[rule]]\nname = "large orders"\nmin_amount = {_LARGE}\nchannels = ["http"]\nexclusive = true\n']
    for country, kind in PROVIDERS.items():
        about = f'country = "{country}"'
        rules.append(f'[[rule]]\nname = "{country}, no e-mail"\n{about}\nlacks = "email"\nchannels = ["sms-{kind}"]\n')
        rules.append(f'[[rule]]\nname = "{country}"\n{about}\nchannels = ["email", "sms-{kind}"]\n')
    return "\n".join(rules)


def go(way: Way, order: Json) -> str | None:
    """Change an order so that its invoice goes this way; return the address whose mailbox there is to be none of."""
    billing = order["billing_address"]
    if way == "sms":
        del billing["email"]
    if way in ("erp", "all"):
        _enlarge(order, _LARGE if way == "erp" else _HUGE)
    if way != "refused":
        return None
    number, domain = order["merchant_reference"].rpartition("-")[2], billing["email"].partition("@")[2]
    billing["email"] = f"gone-{number}@{domain}"
    return str(billing["email"])


def _enlarge(order: Json, least: int) -> None:
    """Multiply what is bought, so that the whole is an order of at least so much."""
    times = max(1, math.ceil(least / order["amount"]))
    for item in order["items"]:
        for name in ("quantity", "amount", "vat_amount"):
            item[name] *= times
    for name in ("amount", "vat_amount"):
        order[name] *= times
