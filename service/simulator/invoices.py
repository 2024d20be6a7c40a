"""Invoices as PDF files: readable, small, and the same bytes for the same input."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cache
from typing import Any

from babel.dates import format_date
from babel.numbers import format_currency, format_decimal
from fpdf import FPDF
from fpdf.enums import XPos, YPos

from service.money import in_units
from service.simulator.documents import Json

_INK = (26, 32, 44)
_SOFT = (107, 114, 128)
_RULE = (214, 219, 226)
_ACCENT = (31, 75, 110)
_PALE = (241, 245, 249)
_LEFT, _RIGHT = 18.0, 192.0  # millimetres on a page of 210
_ROWS = 24  # lines that fit on the page; of more, the last row says how many there are

_LOCALES = {"NO": "nb_NO", "SE": "sv_SE"}
_ACCOUNTS = {"NO": "1503.40.00013", "SE": "Bankgiro 5050-1055"}  # of nobody
_PLAIN = str.maketrans({"đ": "d", "Đ": "D", "ŋ": "n", "Ŋ": "N", "ŧ": "t", "Ŧ": "T", "ł": "l", "Ł": "L"})

_WORDS = {
    "nb_NO": {
        "title": "Faktura", "billed": "Faktureres til", "number": "Fakturanummer", "date": "Fakturadato",
        "due": "Forfallsdato", "order": "Deres referanse", "text": "Beskrivelse", "quantity": "Antall", "vat": "MVA",
        "amount": "Beløp", "net": "Netto", "vat_total": "MVA i alt", "total": "Å betale", "account": "Kontonummer",
        "reference": "KID", "slip": "Betalingsinformasjon", "organisation": "Org.nr.", "more": "… og {n} linjer til",
        "thanks": "Kravet er overdratt til Kravia. Merk betalingen med KID.",
    },
    "sv_SE": {
        "title": "Faktura", "billed": "Faktureras", "number": "Fakturanummer", "date": "Fakturadatum",
        "due": "Förfallodatum", "order": "Er referens", "text": "Beskrivning", "quantity": "Antal", "vat": "Moms",
        "amount": "Belopp", "net": "Netto", "vat_total": "Moms totalt", "total": "Att betala", "account": "Konto",
        "reference": "OCR", "slip": "Betalningsinformation", "organisation": "Org.nr.", "more": "… och {n} rader till",
        "thanks": "Fordran är överlåten till Kravia. Ange OCR vid betalning.",
    },
    "en_GB": {
        "title": "Invoice", "billed": "Billed to", "number": "Invoice number", "date": "Invoice date",
        "due": "Due date", "order": "Your reference", "text": "Description", "quantity": "Quantity", "vat": "VAT",
        "amount": "Amount", "net": "Net", "vat_total": "VAT in total", "total": "To be paid", "account": "Account",
        "reference": "KID", "slip": "How to pay", "organisation": "Reg. no.", "more": "… and {n} lines more",
        "thanks": "The claim is assigned to Kravia. State the KID when you pay.",
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """One row. `amount` is in minor units, VAT included; `vat` is a percentage."""

    text: str
    quantity: float
    vat: float | None
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """What is printed. Amounts are in minor units, VAT included."""

    number: str
    issued: date
    due: date
    seller: str
    buyer: tuple[str, ...]
    organization_number: str | None
    country: str
    reference: str | None  # the order's
    lines: tuple[InvoiceLine, ...]
    amount: int
    vat_amount: int | None
    currency: str
    kid: str


def check_digit(digits: str) -> str:
    """Return the MOD10 (Luhn) check digit that a Norwegian KID ends with."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled  # noqa: PLR2004  the sum of two digits
    return str(-total % 10)


def kid_of(account_id: str, number: str) -> str:
    """Return the payment reference of an invoice: account, running number, check digit."""
    digits = "".join(filter(str.isdecimal, account_id)) + number.rpartition("-")[2]
    return digits + check_digit(digits)


def invoice_of(transaction: Json, number: str, issued: date, due: date, *, seller: str, account_id: str) -> Invoice:
    """Return the invoice of a transaction's document."""
    billing = transaction.get("billing_address") or {}
    items = transaction.get("items") or ()
    person = " ".join(filter(None, (_text(billing, "first_name"), _text(billing, "last_name"))))
    place = " ".join(filter(None, (_text(billing, "postal_code"), _text(billing, "postal_place"))))
    buyer = (_text(billing, "business_name"), person, _text(billing, "address_line"), place, _text(billing, "country"))
    vat = transaction.get("vat_amount")
    if vat is None and items:
        vat = sum(item.get("vat_amount") or 0 for item in items)
    return Invoice(
        number=number,
        issued=issued,
        due=due,
        seller=seller,
        buyer=tuple(filter(None, buyer)),
        organization_number=_text(billing, "organization_number") or None,
        country=_text(billing, "country").upper() or "NO",
        reference=transaction.get("merchant_reference"),
        lines=tuple(
            InvoiceLine(
                text=_text(item, "description") or _text(item, "id"),
                quantity=item.get("quantity") or 1,
                vat=item.get("vat"),
                amount=item.get("amount") or 0,
            )
            for item in items
        ),
        amount=transaction["amount"],
        vat_amount=vat,
        currency=transaction["currency"],
        kid=kid_of(account_id, number),
    )


def _text(document: Mapping[str, Any], name: str) -> str:
    return str(document.get(name) or "")


def printable(text: str, longest: int = 60) -> str:
    """Return `text` in the letters that the PDF's own fonts have: accents they lack are dropped, the rest left out."""
    letters = []
    for letter in " ".join(text.split()).translate(_PLAIN):
        decomposed = (letter, *unicodedata.normalize("NFKD", letter))
        letters.append(next((form for form in decomposed if _has(form)), ""))
    plain = " ".join("".join(letters).split())
    return plain if len(plain) <= longest else plain[: longest - 1].rstrip() + "…"


@cache
def _has(letter: str) -> bool:
    try:
        return bool(letter.encode("windows-1252")) and letter.isprintable()
    except UnicodeEncodeError:
        return False


def money(amount: int, currency: str, locale: str) -> str:
    """Return an amount of minor units as it is read in a language, with ordinary spaces and hyphens."""
    text = format_currency(in_units(amount, currency), currency, locale=locale)
    return text.replace("\u2212", "-").replace("\u202f", " ").replace("\xa0", " ")


def draw(invoice: Invoice) -> bytes:
    """Return the invoice as a PDF of one A4 page."""
    sheet = _Sheet(invoice)
    sheet.head()
    sheet.facts()
    sheet.table()
    sheet.totals()
    sheet.slip()
    return bytes(sheet.pdf.output())


class _Sheet:
    """One page, drawn from the top down."""

    def __init__(self, invoice: Invoice) -> None:
        self.invoice = invoice
        self.locale = _LOCALES.get(invoice.country, "en_GB")
        self.words = _WORDS[self.locale]
        self.pdf = FPDF(format="A4")
        self.pdf.core_fonts_encoding = "windows-1252"
        self.pdf.set_creation_date(datetime.combine(invoice.issued, time(6), UTC))
        self.pdf.set_title(f"{self.words['title']} {invoice.number}")
        self.pdf.set_author(printable(invoice.seller))
        self.pdf.set_margins(_LEFT, 18, 210 - _RIGHT)
        self.pdf.set_auto_page_break(auto=False)
        self.pdf.add_page()

    def head(self) -> None:
        self.pdf.set_fill_color(*_ACCENT)
        self.pdf.rect(0, 0, 210, 3, style="F")
        self.pdf.set_xy(_LEFT, 20)
        self._write(printable(self.invoice.seller, 40), size=16, bold=True, color=_ACCENT)
        self.pdf.set_xy(_LEFT, 20)
        self._write(self.words["title"].upper(), size=20, bold=True, align="R")

    def facts(self) -> None:
        words, invoice = self.words, self.invoice
        self._block(words["billed"], invoice.buyer, top=46)
        if invoice.organization_number:
            self._write(f"{words['organisation']} {printable(invoice.organization_number)}", color=_SOFT, height=5)
        pairs = [
            (words["number"], invoice.number),
            (words["date"], self._date(invoice.issued)),
            (words["due"], self._date(invoice.due)),
            (words["order"], printable(invoice.reference or "-", 28)),
        ]
        for row, (name, value) in enumerate(pairs):
            self.pdf.set_xy(118, 46 + row * 6.5)
            self._write(name, color=_SOFT, width=36, stay=True)
            self._write(value, bold=row in (0, 2), width=_RIGHT - 154, align="R")

    def table(self) -> None:
        words, lines = self.words, self.invoice.lines
        self.pdf.set_xy(_LEFT, 88)
        self._row((words["text"], words["quantity"], words["vat"], words["amount"]), head=True)
        shown = lines if len(lines) <= _ROWS else lines[: _ROWS - 1]
        for line in shown:
            vat = "" if line.vat is None else f"{self._number(line.vat)} %"
            self._row((printable(line.text), self._number(line.quantity), vat, self._money(line.amount)))
        if len(shown) < len(lines):
            self._row((words["more"].format(n=len(lines) - len(shown)), "", "", ""))

    def totals(self) -> None:
        words, invoice = self.words, self.invoice
        rows = [(words["total"], invoice.amount)]
        if invoice.vat_amount is not None:
            rows = [
                (words["net"], invoice.amount - invoice.vat_amount),
                (words["vat_total"], invoice.vat_amount),
                *rows,
            ]
        self.pdf.set_y(self.pdf.get_y() + 4)
        for name, amount in rows:
            last = name == words["total"]
            self.pdf.set_x(118)
            self._write(name, bold=last, size=12 if last else 10, width=36, stay=True, color=_INK if last else _SOFT)
            self._write(
                self._money(amount), bold=last, size=12 if last else 10, width=_RIGHT - 154, align="R", height=7
            )

    def slip(self) -> None:
        words, invoice = self.words, self.invoice
        self.pdf.set_fill_color(*_PALE)
        self.pdf.rect(0, 244, 210, 53, style="F")
        self.pdf.set_xy(_LEFT, 250)
        self._write(words["slip"], size=11, bold=True, color=_ACCENT, height=8)
        account = _ACCOUNTS.get(invoice.country, "NO93 8601 1117 947")
        facts = (
            (words["reference"], invoice.kid),
            (words["account"], account),
            (words["due"], self._date(invoice.due)),
            (words["total"], self._money(invoice.amount)),
        )
        width = (_RIGHT - _LEFT) / len(facts)
        for column, (name, value) in enumerate(facts):
            self.pdf.set_xy(_LEFT + column * width, 261)
            self._write(name, size=8.5, color=_SOFT, width=width, height=5)
            self.pdf.set_x(_LEFT + column * width)
            self._write(value, size=11, bold=True, width=width, height=6)
        self.pdf.set_xy(_LEFT, 279)
        self._write(words["thanks"], size=8.5, color=_SOFT)

    # --- small --------------------------------------------------------------------------------------------------------

    def _block(self, title: str, lines: tuple[str, ...], *, top: float) -> None:
        self.pdf.set_xy(_LEFT, top)
        self._write(title, color=_SOFT, width=90, height=6)
        for row, line in enumerate(lines):
            self._write(printable(line, 48), bold=row == 0, width=90, height=5)

    def _row(self, cells: tuple[str, str, str, str], *, head: bool = False) -> None:
        widths = (96.0, 20.0, 20.0, 38.0)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            align = "L" if column == 0 else "R"
            color = _SOFT if head else _INK
            self._write(cell, size=9, width=width, align=align, height=5.6, stay=column < 3, color=color)  # noqa: PLR2004
        self.pdf.set_draw_color(*_RULE)
        self.pdf.set_line_width(0.3 if head else 0.1)
        self.pdf.line(_LEFT, self.pdf.get_y(), _RIGHT, self.pdf.get_y())
        self.pdf.set_y(self.pdf.get_y() + 0.4)

    def _write(
        self,
        text: str,
        *,
        size: float = 10,
        bold: bool = False,
        color: tuple[int, int, int] = _INK,
        width: float = 0,
        align: str = "L",
        height: float = 6,
        stay: bool = False,
    ) -> None:
        self.pdf.set_font("helvetica", "B" if bold else "", size)
        self.pdf.set_text_color(*color)
        self.pdf.set_x(self.pdf.get_x())
        next_x, next_y = (XPos.RIGHT, YPos.TOP) if stay else (XPos.LMARGIN, YPos.NEXT)
        self.pdf.cell(width, height, text, align=align, new_x=next_x, new_y=next_y)

    def _date(self, day: date) -> str:
        return format_date(day, "medium", locale=self.locale)

    def _number(self, value: float) -> str:
        return format_decimal(value, "#,##0.##", locale=self.locale)

    def _money(self, amount: int) -> str:
        return printable(money(amount, self.invoice.currency, self.locale))
