"""A batch of invoices, one on each line of a CSV file: read, checked, and nothing sent before all of it is right."""

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from service.order_checks import BUSINESS, PERSON, Json
from service.ordering import Creation, Mistaken, merchant_invoice

REQUIRED = ("merchant_reference", "product", "amount_minor", "currency", "description", *PERSON)
"""The columns that every batch has; a business's invoice needs those of `BUSINESS`, too."""

OPTIONAL = (
    *BUSINESS,
    *("customer_reference", "address_line_2", "co_address", "cost_center", "comment"),
    *("vat", "vat_minor", "quantity", "item_id"),
    *("days_until_due", "invoice_channel", "interval"),
)
"""The columns that may be left out, or left empty."""

_SEPARATORS = ",;\t"
_WHOLE = re.compile(r"-?[0-9]{1,15}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_ADDRESS = (*BUSINESS, *PERSON, "customer_reference", "address_line_2", "co_address", "cost_center", "comment")
_COLUMNS = {"id": "item_id", "vat_amount": "vat_minor"}  # where a column is not called as its field


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One invoice of a batch. `digest` is of its cells, by which a changed line is known."""

    line: int  # of the file, from 1; the head is the first
    digest: str
    creation: Creation


def read_batch(text: str, *, public_url: tuple[str, ...], two_step: bool = False) -> tuple[Row, ...]:
    """Return all rows in the file's order; raises `Mistaken` with every mistake of every line."""
    head, lines = _table(text)
    mistakes: list[str] = []
    rows: list[Row] = []
    first: dict[str, int] = {}  # line by reference
    for line, cells in lines:
        if len(cells) != len(head):
            mistakes.append(f"line {line}: has {len(cells)} cells, and the head has {len(head)}")
            continue
        row = {name: cell.strip() for name, cell in zip(head, cells, strict=True) if cell.strip()}
        reference = row.get("merchant_reference", "")
        if reference and reference in first:
            mistakes.append(f"line {line}: merchant_reference: is that of line {first[reference]}, too")
        first.setdefault(reference, line)
        try:
            creation = merchant_invoice(_document(row), public_url=public_url, two_step=two_step)
        except Mistaken as exc:
            told = dict.fromkeys(map(_in_columns, exc.mistakes))  # one cell may be two members of the request
            mistakes += [f"line {line}: {mistake}" for mistake in told]
        else:
            digest = hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()[:16]
            rows.append(Row(line=line, digest=digest, creation=creation))
    if mistakes:
        raise Mistaken(tuple(mistakes))
    if not rows:
        raise Mistaken(("the file: has no line below its head",))
    return tuple(rows)


def _table(text: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the head, and each line that is not empty with its number."""
    text = text.removeprefix("\ufeff")
    top = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=top.count)  # spreadsheets write a semicolon where a comma is for decimals
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    lines: list[tuple[int, list[str]]] = []
    try:
        lines += [(reader.line_num, cells) for cells in reader]
    except csv.Error as exc:
        raise Mistaken((f"line {reader.line_num}: is no CSV: {exc}",)) from exc
    head = [name.strip() for name in lines[0][1]] if lines else []
    mistakes = [f"the head: {name} is missing" for name in REQUIRED if name not in head]
    mistakes += [f"the head: {name or 'an empty name'} is unknown" for name in head if name not in _KNOWN]
    mistakes += [f"the head: {name} is there twice" for name in sorted({n for n in head if head.count(n) > 1})]
    if mistakes:
        raise Mistaken(tuple(mistakes))
    return head, ((line, cells) for line, cells in lines[1:] if any(cell.strip() for cell in cells))


_KNOWN = frozenset((*REQUIRED, *OPTIONAL))


def _document(row: Json) -> Json:
    """Return a row as the document of one invoice; what is no number stays a text, which the checks then refuse."""
    amount = _number(row.get("amount_minor"))
    item = {
        "id": row.get("item_id", "1"),
        "line_id": "1",
        "description": row.get("description"),
        "quantity": _decimal(row.get("quantity", "1")),
        "amount": amount,
        "vat": _decimal(row.get("vat")),
        "vat_amount": _number(row.get("vat_minor")),
    }
    order = {
        "amount": amount,
        "currency": row.get("currency"),
        "merchant_reference": row.get("merchant_reference"),
        "items": [{name: value for name, value in item.items() if value is not None}],
        "billing_address": {name: row[name] for name in _ADDRESS if name in row},
    }
    terms: dict[str, Any] = {name: row[name] for name in ("invoice_channel", "interval") if name in row}
    if "days_until_due" in row:
        terms["days_until_due"] = _number(row["days_until_due"])
    return {"product": row.get("product"), "order": order, **terms}


def _number(cell: str | None) -> int | str | None:
    return int(cell) if cell is not None and _WHOLE.fullmatch(cell) else cell


def _decimal(cell: str | None) -> int | float | str | None:
    if cell is None or not _DECIMAL.fullmatch(cell):
        return cell
    return float(cell) if "." in cell else int(cell)


def _in_columns(mistake: str) -> str:
    """Return a mistake with its column in place of its path."""
    path, _, why = mistake.partition(": ")
    field = path.rpartition(".")[2]
    if field == "amount":
        field = "amount_minor"
    return f"{_COLUMNS.get(field, field)}: {why}"
