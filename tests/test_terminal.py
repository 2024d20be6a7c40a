"""How the record looks on a terminal."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.delivery import Delivery, Outcome
from service.terminal import listing, money, table

AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
DELIVERY = Delivery(
    id="T1",
    account_id="T12345678",
    transaction_id="T12345678.abc",
    received_at=AT,
    outcome=Outcome.FAILED,
    reason="the relay refused the address",
    amount=50000,
    currency="NOK",
    recipient="o***@nordmann.example",
)


def test_columns_line_up_also_with_wide_letters_and_accents() -> None:
    text = table(("NAME", "B"), [("日本", "1"), ("ø", "2"), ("e\N{COMBINING ACUTE ACCENT}", "3")], width=None)
    assert text.split("\n") == ["NAME  B", "日本  1", "ø     2", "e\N{COMBINING ACUTE ACCENT}     3"]


def test_the_last_column_is_cut_to_a_terminal_and_not_to_a_pipe() -> None:
    wide, narrow = listing([DELIVERY], width=None), listing([DELIVERY], width=120)
    assert "the relay refused the address" in wide
    assert max(map(len, narrow.split("\n"))) <= 120
    assert narrow.endswith("…")
    assert listing([DELIVERY], width=1).endswith("the relay r…")


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    for width, gone in [(150, ()), (90, ("RECIPIENT",)), (75, ("RECIPIENT", "AMOUNT")), (60, ("INVOICE", "DONE"))]:
        head, line = listing([DELIVERY], width=width).split("\n")
        assert not [name for name in gone if name in head]
        assert {"RECEIVED", "TRANSACTION", "OUTCOME", "REASON"} <= set(head.split())
        assert max(len(head), len(line)) <= max(width, 61)
        assert "T12345678.abc" in line
    assert "RECIPIENT" in listing([DELIVERY], width=150)


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5), st.integers(1, 100))
def test_no_text_moves_the_cursor(rows: list[tuple[str, str]], width: int) -> None:
    text = table(("A", "B"), rows, width=width)
    assert len(text.split("\n")) == len(rows) + 1
    assert all(c.isprintable() for c in text.replace("\n", ""))


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (50000, "NOK", "500.00 NOK"),
        (5, "SEK", "0.05 SEK"),
        (-1250, "EUR", "-12.50 EUR"),
        (500, "JPY", "500 JPY"),
        (1234, "KWD", "1.234 KWD"),
        (50000, "RSD", "500.00 RSD"),
        (9007199254740993, "NOK", "90071992547409.93 NOK"),
        (100, None, "1.00"),
        (None, "NOK", "-"),
    ],
)
def test_amounts_have_their_currencys_decimals(amount: int | None, currency: str | None, text: str) -> None:
    assert money(amount, currency) == text
