"""The content gate: what a document may not say, and what it may."""

import time
from datetime import date

import pytest
from fpdf import FPDF

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
        # as it comes out of tables, narrow columns and drawn letters
        ("A1B2C-000001", "Fakturanummer:A1B2C-000002Dato:01.11.2026"),
        ("A1B2C-000001", "FakturanummerA1B2C-00000201.11.2026"),
        ("A1B2C-000001", "Faktura\nA1B2C-0\n00002"),
        ("A1B2C-000001", "A 1 B 2 C - 0 0 0 0 0 2"),
        ("A1B2C-000001", "Faktura A1B2C-\n000002"),
        ("A1B2C-000001", "Faktura A1B2C\u00a0-\u00a0000002"),
        ("A1B2C-000001", "Faktura A1B2C\u2011000002"),
        ("A1B2C-000001", "Faktura A1B2C\u00ad000002"),
        # of another seller; one figure longer; ours within a longer one, an amount, a date
        ("A1B2C-000001", "Faktura Z9Y8X-000001"),
        ("A1B2C-000001", "Faktura ABCDE-000001"),
        ("A1B2C-000001", "Faktura A1B2C-0000012"),
        ("INV-999", "Invoice INV-1000"),
        ("INV-99", "Invoice INV-990 of 2026"),
        ("10042", "Faktura 10043, KID 100420017, kr 100,42"),
        ("2026", "Faktura 2025 av 01.01.2026"),
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
        # ours as above, beside the number of one that was credited
        ("A1B2C-000001", "FakturanummerA1B2C-000001Dato: 01.11.2026, kr 500,00. Kreditert: A1B2C-000009"),
        ("A1B2C-000001", "FakturanummerA1B2C-00000101.11.2026, kr 500,00. Kreditert: A1B2C-000009"),
        ("A1B2C-000001", "A1B2C-0\n00001, kr 500,00. Kreditert: A1B2C-000009"),
        ("A1B2C-000001", "A 1 B 2 C - 0 0 0 0 0 1, kr 500,00. Kreditert: A1B2C-000009"),
        ("A1B2C-000001", "A1B2C\u2011000001, kr 500,00. Kreditert: A1B2C-000009"),
        ("A1B2C-000001", "A1B2C\u200b-000001, kr 500,00. Kreditert: A1B2C-000009"),
        ("A1B2C-000001", "A1B2C 000001, kr 500,00. Kreditert: A1B2C-000009"),
        ("A1B2C-000001", "a1b2c-000001, kr 500,00. Kreditert: A1B2C-000009"),
        ("A1B2C-000001", "Uten nummer, kr 500,00. Ordre order-123456, org.nr 556677-8899\n10 stk"),
        ("10042", "Nr10042Dato, 20095 Turku, NOK 500.00"),
        ("10042", "Nr. 1 0 0 4 2, 20095 Turku, NOK 500.00"),
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


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (50000, "NOK", "Antall 1 500,00 25 % 500,00"),
        (50000, "NOK", "Antall 1 500,00"),
        (50000, "NOK", "Antall 1\n500,00"),
        (50000, "NOK", "Sum 400,00500,00"),
        (50000, "NOK", "Å betale kr 500, herav mva. 100,00"),
        (50000, "NOK", "Å betale 500,-, herav mva. 100,00"),
        (50000, "SEK", "Att betala 500:-, varav moms 100,00"),
        (1234550, "SEK", "Att betala 12 345:50, varav moms 100,00 kr"),
        (1234550, "NOK", "Å betale 12\n345,50"),
        (1234550, "NOK", "12\u2019345.50"),
        (12345, "ISK", "12.345,00 kr"),
        (12345, "ISK", "12.345 kr."),
        (1234567, "KWD", "1.234,567 KWD, 10,00"),
        (50000, "PLN", "500,00 PLN, EUR-konto"),
        (50000, "SEK", "500,00 kr. IBAN för EUR"),
        (50000, "NOK", "Det er nok 5 kr igjen. Sum 500,00"),
    ],
)
def test_a_good_invoice_is_not_doubted(amount: int, currency: str, text: str) -> None:
    assert contradiction(f"A1B2C-000001 {text}", asked(amount=amount, currency=currency), HOLD) is None


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (60000, "NOK", "Å betale kr 500"),
        (60000, "NOK", "Å betale 500,-"),
        (12345, "ISK", "12.346 kr"),
        (50000, "NOK", "Sum: € 500,00"),
        (50000, "NOK", "Beskrivelse: sykkel. Sum 500,00 EUR"),
        (50000, "EUR", "500,00 kr"),
        (50000, "SEK", "NOK 500,00 (kr)"),
        (50000, "NOK", "\x01\x02 \ufffd"),
    ],
)
def test_a_wrong_one_is(amount: int, currency: str, text: str) -> None:
    assert contradiction(text, asked(amount=amount, currency=currency), HOLD) is not None


def test_what_may_be_a_telephone_number_is_not_told() -> None:
    found = contradiction("Ring 98765432", asked("12345678"), HOLD)
    assert found is not None
    assert "98765432" not in found.reason


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


@pytest.mark.parametrize("row", ["111 ", "111.111,", "1 111 111 "])
def test_a_long_row_of_numbers_is_read_once(row: str) -> None:
    """It is read where all deliveries are worked on, and they wait for it."""
    text = f"Faktura A1B2C-000001\n{row * (100_000 // len(row))}"
    began = time.process_time()
    found = contradiction(text, asked(), HOLD)
    assert time.process_time() - began < 5  # it took minutes
    assert found is None or "amount" in found.reason


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


def narrow(document: FPDF) -> None:
    """Draw cells with nothing between them."""
    for width, words in ((26, "Fakturanummer"), (24, "A1B2C-000001"), (10, "Dato:"), (30, "01.11.2026")):
        document.cell(width, 8, words)


def wrapped(document: FPDF) -> None:
    document.multi_cell(18, 8, "Faktura A1B2C-000001")


def lettered(document: FPDF) -> None:
    for letter in "A1B2C-000001":
        document.cell(document.get_string_width(letter) + 1.2, 8, letter)


async def test_however_it_is_drawn_ours_is_told_from_others() -> None:
    async with open_inspector() as inspector:
        for drawing in (narrow, wrapped, lettered):
            drawn = FPDF()
            drawn.add_page()
            drawn.set_font("Helvetica", size=11)
            drawing(drawn)
            text = (await inspector.inspect(bytes(drawn.output()))).text
            assert text is not None
            assert contradiction(text, asked(), HOLD) is None
            found = contradiction(f"{text}\nSum 500,00", asked("A1B2C-000002"), ContentGate.OFF)
            assert found is not None, drawing
            assert found.holds
