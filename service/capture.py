"""What is asked of the provider when an invoice is collected: the whole amount, and the transaction's own lines."""

from service.delivery import CaptureRequest, Line, PermanentFailure, Transaction

NO_LINES = "no lines"
"""The note of a capture by amount alone that is nobody's mistake."""


def capture_reference(transaction_id: str) -> str:
    """Return the reference by which our own capture of a transaction is known again, whoever of us asked for it."""
    return f"{transaction_id}:invoice"


def capture_request(transaction: Transaction) -> CaptureRequest:
    """Return the capture of a whole transaction, by lines where they add up, else by amount with a note that says why.

    Raises `PermanentFailure` when the transaction has no amount.
    """
    if transaction.amount is None:
        raise PermanentFailure("the transaction has no whole amount")
    lines, note = _lines(transaction, transaction.amount)
    return CaptureRequest(
        transaction_id=transaction.id,
        reference=capture_reference(transaction.id),
        amount=transaction.amount,
        lines=lines,
        note=note,
    )


def _lines(transaction: Transaction, amount: int) -> tuple[tuple[Line, ...], str | None]:
    if not transaction.lines:
        return (), NO_LINES
    lines = transaction.lines
    amounts = [line.amount for line in lines if line.amount is not None]
    if len(amounts) != len(lines):
        return (), "by amount alone: a line's amount is not a whole number"
    if (shipping := transaction.missing_shipping) is not None:
        lines = (*lines, shipping)
    elif sum(amounts) != amount:
        return (), f"by amount alone: the lines add up to {sum(amounts)}, not to {amount}"
    ids = [line.line_id for line in lines]
    if None in ids:
        return (), "by amount alone: a line has no line_id"
    if len(set(ids)) != len(ids):
        return (), "by amount alone: a line_id is used twice"
    return lines, None
