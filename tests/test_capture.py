"""What is asked of the provider when an invoice is collected."""

from datetime import UTC, datetime

import pytest

from service.capture import NO_LINES, capture_reference, capture_request
from service.delivery import Line, PermanentFailure, Standing, Transaction

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def line(line_id: str | None, amount: int | None) -> Line:
    return Line(line_id=line_id, amount=amount)


def transaction(amount: int | None, *lines: Line, shipping: Line | None = None) -> Transaction:
    return Transaction(
        id="T1.a",
        standing=Standing.AUTHORIZED,
        status="AUTHORIZED",
        product="kravia",
        product_type="kravia.invoice_b2b",
        amount=amount,
        currency="NOK",
        read_at=NOW,
        lines=lines,
        shipping=shipping,
    )


@pytest.mark.parametrize(
    ("of", "captured"),
    [
        (transaction(100, line("1", 100)), (line("1", 100),)),
        (transaction(70, line("1", 100), line("2", -30), line("3", 0)), (line("1", 100), line("2", -30), line("3", 0))),
        (transaction(149, line("1", 100), shipping=line("s", 49)), (line("1", 100), line("s", 49))),
        (transaction(149, line("1", 100), line("s", 49), shipping=line("s", 49)), (line("1", 100), line("s", 49))),
        (transaction(100, line("1", 100), shipping=line("s", 0)), (line("1", 100),)),
        (transaction(100, line("1", 100), shipping=line(None, 49)), (line("1", 100),)),
    ],
)
def test_by_lines_when_they_add_up(of: Transaction, captured: tuple[Line, ...]) -> None:
    request = capture_request(of)
    assert request.lines == captured
    assert request.note is None
    assert sum(part.amount or 0 for part in request.lines) == request.amount == of.amount


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (transaction(100, line(None, 100)), "no line_id"),
        (transaction(200, line("1", 100), line("1", 100)), "twice"),
        (transaction(100, line("1", None)), "not a whole number"),
        (transaction(100, line("1", 90)), "add up to 90, not to 100"),
        (transaction(100, line("1", 90), shipping=line("s", 9)), "add up to 90"),
        (transaction(149, line("1", 100), shipping=line(None, 49)), "no line_id"),
        (transaction(149, line("1", 51), line("s", 49), shipping=line("s", 49)), "add up to 100"),
        (transaction(100), NO_LINES),
        (transaction(49, shipping=line("s", 49)), NO_LINES),
    ],
)
def test_by_amount_alone_with_the_reason(of: Transaction, why: str) -> None:
    request = capture_request(of)
    assert (request.amount, request.lines) == (of.amount, ())
    assert request.note is not None
    assert why in request.note


def test_our_own_capture_is_known_by_its_reference() -> None:
    assert capture_request(transaction(100)).reference == capture_reference("T1.a") == "T1.a:invoice"


def test_without_an_amount_nothing_is_captured() -> None:
    with pytest.raises(PermanentFailure):
        capture_request(transaction(None, line("1", 1)))
