import io
from datetime import date
from typing import Any

import pytest
from pypdf import PdfReader

from service.simulator.invoices import check_digit, draw, invoice_of, kid_of, printable


def document(**changes: Any) -> dict[str, Any]:
    billing = {
        "first_name": "Ola",
        "last_name": "Nordmann",
        "business_name": "Nordmann AS",
        "organization_number": "999999999",
        "address_line": "Storgata 1",
        "postal_code": "0151",
        "postal_place": "Oslo",
        "country": "NO",
    }
    items = [
        {"line_id": "1", "description": "Stol «Ørnes»", "quantity": 2, "amount": 40000, "vat": 25, "vat_amount": 8000},
        {"line_id": "2", "description": "Rabatt", "quantity": 1, "amount": -1234, "vat": 25, "vat_amount": -247},
    ]
    whole: dict[str, Any] = {
        "amount": 1238766,
        "currency": "NOK",
        "billing_address": billing,
        "items": items,
        "merchant_reference": "order-7",
    }
    return whole | changes


def pdf(**changes: Any) -> bytes:
    issued, due = date(2026, 7, 1), date(2026, 7, 15)
    return draw(
        invoice_of(document(**changes), "A1B2C-000001", issued, due, seller="Nordlys Interiør", account_id="T12345678")
    )


def text_of(content: bytes) -> str:
    [page] = PdfReader(io.BytesIO(content)).pages
    return page.extract_text()


def test_an_invoice_can_be_read() -> None:
    text = text_of(pdf())
    for expected in (
        "FAKTURA", "A1B2C-000001", "1. juli 2026", "15. juli 2026", "12 387,66 kr", "77,53 kr", "-12,34 kr", "25 %",
        "Nordmann AS", "Ola Nordmann", "0151 Oslo", "Stol «Ørnes»", "Nordlys Interiør", "order-7", "KID",
        kid_of("T12345678", "A1B2C-000001"),
    ):  # fmt: skip
        assert expected in text, expected


@pytest.mark.parametrize(
    ("country", "currency", "expected"),
    [
        ("SE", "SEK", ("FAKTURA", "Förfallodatum", "Att betala")),
        ("FI", "EUR", ("INVOICE", "Due date", "€12,387.66")),
        ("JP", "JPY", ("INVOICE", "1,238,766")),
    ],
)
def test_an_invoice_is_in_the_buyers_language(country: str, currency: str, expected: tuple[str, ...]) -> None:
    text = text_of(pdf(currency=currency, billing_address={"country": country}))
    assert all(word in text for word in expected), text


def test_the_same_invoice_is_the_same_file() -> None:
    assert pdf() == pdf()
    assert pdf() != pdf(amount=1)
    assert len(pdf()) < 10_000


@pytest.mark.parametrize(
    "odd", ["🎉 Čáhppes Ŋiŋŋá", "\x00\n\t\u202e", "x" * 500, "{{ 7 }} <b>&</b>", "日本語", "“curly” — …"]
)
def test_odd_text_makes_an_ordinary_page(odd: str) -> None:
    billing = dict.fromkeys(("first_name", "business_name", "address_line", "country", "organization_number"), odd)
    items = [{"description": odd, "amount": 1, "vat": None, "quantity": None}] * 40
    text = text_of(pdf(billing_address=billing, items=items, merchant_reference=odd))
    assert "A1B2C-000001" in text
    assert "17 lines more" in text


def test_letters_that_the_font_lacks_lose_their_accents() -> None:
    assert printable("Čáhppes Ŋiŋŋá 🎉 Øre") == "Cáhppes Ninná Øre"
    assert printable("a" * 70) == "a" * 59 + "…"


def test_without_items_the_vat_is_not_invented() -> None:
    text = text_of(pdf(items=[]))
    assert "MVA i alt" not in text
    assert "12 387,66 kr" in text


@pytest.mark.parametrize(("digits", "check"), [("7992739871", "3"), ("0", "0"), ("234567", "6")])
def test_a_kid_ends_with_its_check_digit(digits: str, check: str) -> None:
    assert check_digit(digits) == check


def test_every_single_wrong_digit_in_a_kid_shows() -> None:
    kid = kid_of("T12345678", "A1B2C-000042")
    assert kid[:-1] == "12345678000042"
    for place, digit in enumerate(kid):
        for wrong in set("0123456789") - {digit}:
            broken = kid[:place] + wrong + kid[place + 1 :]
            assert check_digit(broken[:-1]) != broken[-1]
