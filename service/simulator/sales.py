"""Invented customers, at `.example` addresses, and what they buy: for the demo, tests and benchmarks."""

from dataclasses import dataclass
from random import Random
from typing import Literal

from service.simulator.documents import Json

Buyer = Literal["business", "consumer"]
Country = Literal["NO", "SE", "FI", "DK", "DE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Market:
    """What is particular to selling in one country. `vat` is a percentage, `rate` the price level of the currency."""

    currency: str
    vat: float
    rate: float
    business: Json
    consumer: Json


def _person(  # noqa: PLR0917  a row of the table below
    first: str, last: str, domain: str, phone: str, street: str, code: str, place: str, country: str
) -> Json:
    return {
        "first_name": first,
        "last_name": last,
        "email": f"{first.lower()}@{domain}",
        "phone_number": phone,
        "address_line": street,
        "postal_code": code,
        "postal_place": place,
        "country": country,
    }


_MARKETS: dict[str, _Market] = {
    "NO": _Market(
        currency="NOK",
        vat=25,
        rate=1.0,
        business=_person(
            "Kari", "Solberg", "fjordbygg.example", "+4740000001", "Strandgaten 12", "5013", "Bergen", "NO"
        )
        | {"business_name": "Fjordbygg AS", "organization_number": "999999999", "customer_reference": "Prosjekt 17"},
        consumer=_person("Ola", "Nordmann", "nordmann.example", "+4740000002", "Storgata 1", "0151", "Oslo", "NO"),
    ),
    "SE": _Market(
        currency="SEK",
        vat=25,
        rate=1.0,
        business=_person(
            "Astrid", "Lind", "lindochson.example", "+46700000001", "Drottninggatan 4", "11151", "Stockholm", "SE"
        )
        | {"business_name": "Lind & Son AB", "organization_number": "5555555555"},
        consumer=_person("Elsa", "Björk", "bjork.example", "+46700000002", "Kungsgatan 8", "41119", "Göteborg", "SE"),
    ),
    "FI": _Market(
        currency="EUR",
        vat=25.5,
        rate=0.09,
        business=_person("Aino", "Virta", "virtapuu.example", "+358400000001", "Rantatie 3", "00100", "Helsinki", "FI")
        | {"business_name": "Virtapuu Oy", "organization_number": "0000000-0"},
        consumer=_person("Eino", "Mäki", "maki.example", "+358400000002", "Koivukuja 5", "33100", "Tampere", "FI"),
    ),
    "DK": _Market(
        currency="DKK",
        vat=25,
        rate=0.65,
        business=_person("Freja", "Holm", "holmbyg.example", "+4520100001", "Havnegade 9", "8000", "Aarhus C", "DK")
        | {"business_name": "Holm Byg ApS", "organization_number": "00000000"},
        consumer=_person("Mikkel", "Østergård", "oster.example", "+4520100002", "Nygade 2", "5000", "Odense C", "DK"),
    ),
    "DE": _Market(
        currency="EUR",
        vat=19,
        rate=0.09,
        business=_person(
            "Jana", "Krüger", "krueger-bau.example", "+4915000000001", "Hafenstraße 7", "20457", "Hamburg", "DE"
        )
        | {"business_name": "Krüger Bau GmbH", "organization_number": "HRB 000000"},
        consumer=_person("Uwe", "Groß", "gross.example", "+4915000000002", "Lindenweg 3", "10115", "Berlin", "DE"),
    ),
}

_GOODS = (
    ("chair-01", "Stol «Ørnes», eik", 249900),
    ("table-02", "Spisebord «Lofoten», 220 cm", 1299000),
    ("lamp-03", "Taklampe «Nordlys»", 189000),
    ("wool-04", "Ullpledd, grått", 99900),
    ("shelf-05", "Vegghylle, 90 cm", 74900),
)


def sale(
    *,
    buyer: Buyer = "business",
    country: Country = "NO",
    callback_url: str,
    channel: str | None = "merchant",
    reference: str = "order-1",
    random: Random,
) -> Json:
    """Return the body of `POST /v1/sessions/pay` for one sale. A `channel` of None leaves it to configuration."""
    market = _MARKETS[country]
    items = [_line(place, goods, market, random) for place, goods in enumerate(random.sample(_GOODS, 2), start=1)]
    payment: Json = {
        "payment_product_type": "kravia.invoice_b2b" if buyer == "business" else "kravia.invoice_b2c",
        "operation": "invoice_payment",
        "days_until_due": 14,
    }
    if channel is not None:
        payment["invoice_channel"] = channel
    order = {
        "amount": sum(item["amount"] for item in items),
        "currency": market.currency,
        "vat_amount": sum(item["vat_amount"] for item in items),
        "merchant_reference": reference,
        "items": items,
        "billing_address": dict(market.business if buyer == "business" else market.consumer),
    }
    return {"payment": payment, "session": {"url": {"callback_url": callback_url}, "order": order}}


def grouped_sale(
    *,
    callback_url: str = "",
    business_name: str = "Fjordbygg AS",
    organization_number: str = "999999999",
    customer_reference: str | None = None,
    country: Country = "NO",
    currency: str | None = None,
    amount: int = 125_000,
    email: str = "kari@fjordbygg.example",
    days_until_due: int = 14,
    interval: str | None = None,
    channel: str | None = "merchant",
    reference: str = "purchase-1",
    text: str = "Varer etter avtale",
    quantity: int = 1,
) -> Json:
    """Return the body of `POST /v1/sessions/pay` for one purchase that is invoiced with others of its customer.

    An `interval` or `channel` of None leaves it to configuration. `amount` is in minor units, VAT of 25 % included.
    """
    market = _MARKETS[country]
    vat_amount = round(amount / 5)
    billing = market.business | {
        "business_name": business_name,
        "organization_number": organization_number,
        "email": email,
    }
    billing.pop("customer_reference", None)
    if customer_reference is not None:
        billing["customer_reference"] = customer_reference
    item = {
        "id": "goods",
        "line_id": "1",
        "description": text,
        "quantity": quantity,
        "amount": amount,
        "vat": 25,
        "vat_amount": vat_amount,
    }
    payment: Json = {
        "payment_product_type": "kravia.invoice_b2b_grouped",
        "operation": "invoice_payment",
        "days_until_due": days_until_due,
    }
    if interval is not None:
        payment["invoice_schedule"] = {"interval": interval}
    if channel is not None:
        payment["invoice_channel"] = channel
    order = {
        "amount": amount,
        "currency": currency or market.currency,
        "vat_amount": vat_amount,
        "merchant_reference": reference,
        "items": [item],
        "billing_address": billing,
    }
    return {"payment": payment, "session": {"url": {"callback_url": callback_url}, "order": order}}


def _line(place: int, goods: tuple[str, str, int], market: _Market, random: Random) -> Json:
    sku, description, price = goods
    quantity = random.randint(1, 4)
    amount = round(price * market.rate) * quantity
    return {
        "id": sku,
        "line_id": str(place),
        "description": description,
        "quantity": quantity,
        "amount": amount,
        "vat": market.vat,
        "vat_amount": round(amount * market.vat / (100 + market.vat)),
    }
