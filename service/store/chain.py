"""New lines of the history as rows, each with its place in its delivery's hash chain."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from service.chain import Fields, detail_hash, line_hash, moment
from service.delivery import Entry
from service.store.rows import entry_values
from service.store.tables import storable

_SALT_BYTES = 16


def chained(
    delivery_id: str, last: str | None, entries: Sequence[Entry], *, without_words: bool = False
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows of new lines and the hash of the last one; `last` is that of the line before them, if any.

    Whoever calls holds the delivery's row, so that lines follow one another. With `without_words` the chain is as
    if they had been kept and then erased.
    """
    rows = []
    for entry in entries:
        row = _row(delivery_id, last, _as_stored(entry))
        last = row["hash"]
        if without_words:
            row |= {"detail": None, "salt": None}
        rows.append(row)
    return rows, last


def _row(delivery_id: str, last: str | None, entry: Entry) -> dict[str, Any]:
    salt = words = None
    if entry.detail is not None:
        salt = secrets.token_hex(_SALT_BYTES)
        words = detail_hash(salt, entry.detail)
    at = moment(entry.at)
    fields = Fields(at=at, step=entry.step, result=entry.result, channel=entry.channel, message_id=entry.message_id)
    own = line_hash(last or delivery_id, fields, words)
    return entry_values(delivery_id, entry) | {"salt": salt, "detail_hash": words, "hash": own}


def _as_stored(entry: Entry) -> Entry:
    """Return the line as the database will give it back: the hash is over that."""
    texts = (entry.detail, entry.channel, entry.message_id)
    if all(text is None or text.isascii() for text in texts) and not any("\0" in text for text in texts if text):
        return entry
    detail, channel, message_id = (None if text is None else storable(text) for text in texts)
    return replace(entry, detail=detail, channel=channel, message_id=message_id)
