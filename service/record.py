"""The record alone, opened for the commands that need nothing else: app.py brings all the rest in with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.clock import SystemClock
from service.delivery import Store
from service.settings import Settings
from service.store import open_store


@asynccontextmanager
async def open_record(settings: Settings) -> AsyncIterator[Store]:
    """Open the record as an operator's command wants it; the schema must be there."""
    async with open_store(settings.database_url.get_secret_value(), clock=SystemClock(), migrate=False) as store:
        yield store
