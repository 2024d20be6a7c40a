"""How a line of the history is bound to those before it: the arithmetic alone, for the record and for whoever verifies.

The words of a line enter its hash as a salted hash of their own, so that both can be erased and the chain still holds.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

_array = json.JSONEncoder(separators=(",", ":")).encode  # ASCII, no spaces: one text for one list of values


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What of a line is hashed as it is; `at` as `moment` writes it."""

    at: str
    step: str
    result: str
    channel: str | None
    message_id: str | None


def detail_hash(salt: str, detail: str) -> str:
    """Return the hex digest that stands for a line's words. A salt is 32 hex digits: where the words begin is plain."""
    return hashlib.sha256((salt + detail).encode()).hexdigest()


def line_hash(previous: str, fields: Fields, words: str | None) -> str:
    """Return the hex digest of a line: SHA-256 of a JSON array of ASCII without spaces, and of what came before.

    `previous` is the hash of the line before, for the first one the id of the delivery; `words` is the `detail_hash`,
    None for a line without words.
    """
    values = [previous, fields.at, fields.step, fields.result, fields.channel, words, fields.message_id]
    return hashlib.sha256(_array(values).encode()).hexdigest()


def moment(at: datetime) -> str:
    """Return an aware time as the chain has it: UTC, to the microsecond, `2026-11-22T10:00:00.000000+00:00`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")
