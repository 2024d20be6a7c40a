"""A large record, filled by one statement: most deliveries closed, some open and due later, a few due now."""

import sqlite3
import time
from pathlib import Path

import psycopg

from service.store import migrate
from tests.fakes import ACCOUNT

_MICROSECONDS = 1_000_000
_DAY = 86_400
# Every `every`-th row is due; of the others, one in ten is open and due within the next days.
_FILL = """
INSERT INTO deliveries (id, account_id, transaction_id, received_at, kind, outcome, lane, due_at, invoice_number,
                        merchant_reference, amount, currency, channel, recipient, recipient_key, closed_at)
WITH RECURSIVE n(i) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count})
SELECT '{account}.' || i, '{account}', '{account}.' || i, {now} - ({count} - i) * {second}, 'invoice',
       CASE WHEN i % {every} = 0 OR i % 10 = 1 THEN 'open' ELSE 'completed' END, 'provider',
       CASE WHEN i % {every} = 0 THEN {now} - ({count} - i) WHEN i % 10 = 1 THEN {now} + {day} + i END,
       'A1B2C-' || i, 'order-' || i, 50000, 'NOK', 'email', 'o***@kunde.example', 'key-' || (i / 20),
       CASE WHEN i % {every} = 0 OR i % 10 = 1 THEN NULL ELSE {now} - ({count} - i) * {second} END
FROM n
"""


def fill(url: str, count: int, *, due: int) -> float:
    """Make the tables at `url` and so many rows, `due` of them due now; return the seconds it took."""
    began = time.monotonic()
    migrate(url)
    now = int(time.time()) * _MICROSECONDS
    values = {"account": ACCOUNT, "count": count, "now": now, "second": _MICROSECONDS, "day": _DAY * _MICROSECONDS}
    statement = _FILL.format(**values, every=count // due)
    if url.startswith("sqlite"):
        _sqlite(url, statement)
    else:
        _postgresql(url, statement)
    return time.monotonic() - began


def _sqlite(url: str, statement: str) -> None:
    connection = sqlite3.connect(Path(url.removeprefix("sqlite:///")))
    try:
        connection.execute("PRAGMA cache_size = -200000")
        connection.execute(statement)
        connection.commit()
        connection.execute("ANALYZE")
    finally:
        connection.close()


def _postgresql(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
        connection.execute("VACUUM ANALYZE deliveries")  # as it is done by itself, sooner or later
