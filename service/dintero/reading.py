"""Reading somebody else's JSON: every function takes anything and returns a usable value, or None (or nothing)."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal

REFERENCE = 200
"""The most characters of a reference, number or id that are kept: it must fit an index of the record."""

TEXT = 2000
"""The most characters of a name or another free text that are kept."""

_LARGEST = 2**53 - 1  # what JSON carries between all programs, and what fits the record's integers
_IDENTIFIER = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9._-]{1,100}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NOTHING: Mapping[str, object] = {}


def document(body: bytes) -> object:
    """Return the JSON value in `body`; raises `ValueError` when it is none."""
    try:
        return json.loads(body)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def members(value: object) -> Mapping[str, object]:
    """Return a JSON object's members; none of anything else."""
    return value if isinstance(value, dict) else _NOTHING


def elements(value: object) -> list[object]:
    """Return a JSON array's elements; none of anything else."""
    return value if isinstance(value, list) else []


def objects(value: object) -> Iterator[Mapping[str, object]]:
    """Yield the objects in a JSON array."""
    return (element for element in elements(value) if isinstance(element, dict))


def text(value: object, longest: int = TEXT) -> str | None:
    """Return a stripped string that every store can hold, at most `longest` characters; an empty one is None."""
    if not isinstance(value, str):
        return None
    return _UNSTORABLE.sub("\ufffd", value.strip()[:longest]).strip() or None


def label(value: object) -> str | None:
    """Return an id for the record, which some documents give as a number."""
    return str(value) if whole(value) is not None else text(value, REFERENCE)


def identifier(value: object) -> str | None:
    """Return an id that is safe in a path and in the record (contract.md, "a usable id"); None of anything else."""
    return value if isinstance(value, str) and _IDENTIFIER.fullmatch(value) else None


def whole(value: object) -> int | None:
    """Return a JSON integer, such as an amount in minor units. Neither `true` nor `500.0` is one."""
    return value if type(value) is int and abs(value) <= _LARGEST else None


def quantity(value: object) -> Decimal | None:
    """Return how many, or how much, of something was bought: a JSON number above zero, with up to three decimals."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST:
        return None
    return round(Decimal(str(value)), 3) or None


def seconds(value: object) -> float | None:
    """Return a duration, given as a number or in digits, between nothing and a day."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return min(max(number, 0.0), 86400.0) if math.isfinite(number) else None


def moment(value: object) -> datetime | None:
    """Return an ISO 8601 time in UTC; one without a zone is taken to be UTC."""
    try:
        at = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
        if at is None:
            return None
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def day(value: object) -> date | None:
    """Return an ISO 8601 date, also the date of a time."""
    try:
        return date.fromisoformat(value.strip()[:10]) if isinstance(value, str) else None
    except ValueError:
        return None
