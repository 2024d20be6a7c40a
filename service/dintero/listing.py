"""Listing what was created in a span of time, page by page; the API filters by no other time (dintero-api.md, 5)."""

from datetime import UTC, datetime
from urllib.parse import urlencode

from service.delivery import LISTED_AT_ONCE, Clock, Transaction, TransientFailure
from service.dintero.access import Access, is_success, parsed
from service.dintero.transaction import parse_transaction
from service.dintero.wire import place

_DOING = "listing the transactions"


class Listing:
    """Reads pages of transactions, as they are given."""

    def __init__(self, access: Access, clock: Clock, *, checkout_url: str) -> None:
        self._access = access
        self._clock = clock
        self._at = f"{checkout_url}/transactions"

    async def created(self, since: datetime, until: datetime | None, after: str | None) -> tuple[Transaction, ...]:
        """Return a page; see `Payments.list_created`.

        One element that is no transaction spoils the page: to leave it out would make a full page look like the last.
        """
        read_at = self._clock.now()
        listed = await self._read(_query(since, until, after))
        return tuple(parse_transaction(element, read_at=read_at) for element in listed)

    async def look(self) -> None:
        """Return if the listing answers, whatever it says."""
        await self._read("limit=1")

    async def _read(self, query: str) -> list[object]:
        answer = await self._access.exchange("GET", place(f"{self._at}?{query}"), doing=_DOING)
        if not is_success(answer.status):
            raise self._access.refused(answer, _DOING)
        listed = parsed(answer, _DOING)
        if not isinstance(listed, list):
            raise TransientFailure(f"Dintero answered with something that is no list when {_DOING}")
        return listed


def _query(since: datetime, until: datetime | None, after: str | None) -> str:
    asked = {
        "payment_product": "kravia",
        "created_at.gte": _instant(since),
        "created_at.lte": None if until is None else _instant(until),
        "limit": str(LISTED_AT_ONCE),
        "starting_after": after,
    }
    return urlencode([(name, value) for name, value in asked.items() if value is not None])


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
