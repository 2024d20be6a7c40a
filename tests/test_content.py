"""The content gate: what a document may not say, and what it may."""

from datetime import date

import pytest

from service.content import contradiction
from service.delivery import ContentGate, Transaction
from service.pdf import open_inspector
from service.simulator.invoices import Invoice, InvoiceLine, draw
from tests.fakes import a_transaction

HOLD = ContentGate.HOLD


def asked(number: str = "A1B2C-000001", **changes: object) -> Transaction:
    return a_transaction(invoice_number=number, **changes)


@pytest.mark.parametrize("gate", list(ContentGate))
@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("A1B2C-000001", "Faktura A1B2C-000002 kr 500,00"),
        ("A1B2C-000001", "Faktura\nA1B2C-100001\nkr 500,00"),
        ("10042", "Fakturanr 10043, å betale 500,00"),
        ("INV/2026/7", "Invoice INV/2026/8: NOK 500.00"),
    ],
)
def test_another_invoice_is_held_whatever_the_gate(number: str, text: str, gate: ContentGate) -> None:
    found = contradiction(text, asked(number), gate)
    assert found is not None
    assert found.holds


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("A1B2C-000001", "Faktura A1B2C-000001, kr 500,00. Erstatter A1B2C-000000"),
        ("A1B2C-000001", "Faktura A1B2C- 000001 kr 500,00"),
        ("A1B2C-000001", "Faktura A1B2C\n-000001, 500,00"),
        ("10042", "Faktura 10042 til 0150 Oslo, org.nr 923456789, NOK 500.00"),
        ("A1B2C-000001", "Faktura uten nummer, kr 500,00"),
    ],
)
def test_ours_is_no_other(number: str, text: str) -> None:
    assert contradiction(text, asked(number), HOLD) is None


@pytest.mark.parametrize(
    "shown",
    ["kr 12 345,50", "12.345,50 kr", "NOK 12,345.50", "12345,50", "12\u00a0345,50", "12\u202f345.50 NOK", "12'345.50"],
)
def test_amounts_as_people_write_them(shown: str) -> None:
    text = f"Faktura A1B2C-000001: {shown}. Herav mva. 2 469,10"
    assert contradiction(text, asked(amount=1234550), HOLD) is None
    found = contradiction(text, asked(amount=1234551), HOLD)
    assert found is not None
    assert found.reason == "the document does not show the transaction's amount"


def test_the_currency() -> None:
    text = "Faktura A1B2C-000001: 500,00 {}"
    assert contradiction(text.format("SEK"), asked(currency="SEK"), HOLD) is None
    assert contradiction(text.format("kr"), asked(currency="SEK"), HOLD) is None
    assert contradiction(text.format("€"), asked(currency="EUR"), HOLD) is None
    found = contradiction(text.format("EUR"), asked(currency="NOK"), HOLD)
    assert found is not None
    assert found.reason == "the document is in EUR and the transaction in NOK"


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_what_cannot_be_read_follows_the_gate(text: str | None) -> None:
    held, warned = contradiction(text, asked(), HOLD), contradiction(text, asked(), ContentGate.WARN)
    assert (held and held.holds, warned and warned.holds) == (True, False)
    assert contradiction(text, asked(), ContentGate.OFF) is None


@pytest.mark.parametrize(("country", "currency"), [("NO", "NOK"), ("SE", "SEK"), ("FI", "EUR"), ("DK", "DKK")])
async def test_a_real_document(country: str, currency: str) -> None:
    line = InvoiceLine(text="Sykkel 10042", quantity=1, vat=25, amount=1234550)
    drawn = Invoice(
        number="A1B2C-000001",
        issued=date(2026, 11, 1),
        due=date(2026, 11, 15),
        seller="Bjørns Sykkelverksted",
        buyer=("Nordmann AS", "Storgata 1", "0150 Oslo"),
        organization_number="923456789",
        country=country,
        reference="order-123",
        lines=(line,),
        amount=1234550,
        vat_amount=246910,
        currency=currency,
        kid="12345678000001",
    )
    async with open_inspector() as inspector:
        text = (await inspector.inspect(draw(drawn))).text
    assert contradiction(text, asked(amount=1234550, currency=currency), HOLD) is None
    for other in (asked("A1B2C-000002", amount=1234550), asked(amount=1234551, currency=currency)):
        found = contradiction(text, other, HOLD)
        assert found is not None
        assert found.holds
