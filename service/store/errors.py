"""What a database says when it fails, turned into our failures: classified, and without secrets or values."""

import sqlite3
from collections.abc import Sequence

import psycopg
from sqlalchemy.exc import DBAPIError, OperationalError

from service.delivery import CommitInDoubt, StoreUnavailable
from service.privacy import scrub

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class SchemaOutdated(StoreUnavailable):
    """The tables are missing or older than this program; `merchant-delivery migrate` mends it."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}: run `merchant-delivery migrate`")


class RowLocked(StoreUnavailable):
    """Somebody else holds the delivery's row for longer than a write may wait; nothing was written."""


class Unknown(KeyError):
    """No delivery has this id."""


class Again(Exception):
    """Nothing was written, and the same may well succeed at once: another process was in the way."""


def unavailable(error: DBAPIError, secrets: Sequence[str] = ()) -> StoreUnavailable:
    """Return the failure to raise for a database's error, with its reason in the database's own words."""
    return StoreUnavailable(_words(error, secrets))


def at_commit(error: DBAPIError, secrets: Sequence[str] = ()) -> Exception:
    """Return the failure to raise for an error while a commit was under way.

    Only a refusal that the database cannot give after it has committed is taken for one: a conflict or a broken
    constraint on PostgreSQL (classes 40 and 23), a busy file on SQLite.
    """
    if passing(error):
        return Again(_words(error, secrets))
    if isinstance(error.orig, psycopg.Error) and (error.orig.sqlstate or "").startswith("23"):
        return unavailable(error, secrets)
    return CommitInDoubt(_words(error, secrets))


def passing(error: DBAPIError) -> bool:
    """Say whether the database refused because of others at work: a deadlock, a serialisation failure, a busy file."""
    orig = error.orig
    if isinstance(orig, psycopg.Error):
        return orig.sqlstate in {"40001", "40P01"}
    # The low byte is the error, the rest says more about it.
    return isinstance(orig, sqlite3.Error) and (getattr(orig, "sqlite_errorcode", 0) & 0xFF) in _BUSY


def locked(error: DBAPIError) -> bool:
    """Say whether a row was another's for longer than a write may wait (PostgreSQL's `lock_timeout`)."""
    return isinstance(error.orig, psycopg.Error) and error.orig.sqlstate == "55P03"


def lost(error: DBAPIError) -> bool:
    """Say whether the connection broke (and so a new one may do)."""
    return error.connection_invalidated


def nobodys_fault(error: DBAPIError) -> bool:
    """Say whether the database is at fault rather than what was asked of it: trying each item alone would not help."""
    if locked(error):
        return False  # it is the one row's, and the others can be written
    damaged = type(error.orig) is sqlite3.DatabaseError
    return damaged or isinstance(error, OperationalError) or lost(error)


def _words(error: DBAPIError, secrets: Sequence[str]) -> str:
    said = str(error.orig)
    if isinstance(error.orig, psycopg.Error):
        # The first line only: the others quote values of the row.
        said = error.orig.diag.message_primary or said.partition("\n")[0]
    return f"database: {scrub(said, secrets)}"
