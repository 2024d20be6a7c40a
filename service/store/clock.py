"""The database's clock: the one place where it is read, and where tests shift it."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, bindparam, select, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.delivery import Clock
from service.store.tables import Instant, microseconds


class _Now(FunctionElement[int]):
    """Microseconds since 1970 by the database's own clock."""

    type = BigInteger()
    inherit_cache = True


@compiles(_Now, "postgresql")
def _postgresql(_element: _Now, _compiler: SQLCompiler, **_: Any) -> str:
    # The clock, not the transaction's start: that may have been long ago. As a subquery it is read once a statement,
    # and an index can be searched by it.
    return "(SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT))"


@compiles(_Now, "sqlite")
def _sqlite(_element: _Now, _compiler: SQLCompiler, **_: Any) -> str:
    # Every SQLite has julianday (unixepoch's `subsec` is of 2023); it is exact to the millisecond.
    return "CAST(round((julianday('now') - 2440587.5) * 86400000000.0) AS INTEGER)"


def database_now(*, plus: ColumnElement[int] | None = None) -> ColumnElement[datetime]:
    """Return the expression for the database's time, `plus` microseconds later.

    A statement that holds it is executed with `shift`, from the function below.
    """
    now = _Now() + bindparam("shift", type_=BigInteger)
    return type_coerce(now if plus is None else now + plus, Instant)


def now_of(connection: Connection, shift: int) -> datetime:
    """Return the database's time, read now."""
    return connection.execute(_NOW, {"shift": shift}).scalar_one()


def shift(clock: Clock) -> int:
    """Return by how many microseconds a statement is to shift the database's clock: the process's own offset."""
    return microseconds(clock.offset)


_NOW = select(database_now())
