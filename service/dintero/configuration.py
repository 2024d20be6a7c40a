"""The levels of configuration that are read apart from a transaction: session profiles, and the account's checkout."""

from collections.abc import Mapping
from typing import Protocol

from service.delivery import Clock
from service.dintero.access import Access, is_for_now, is_success, parsed
from service.dintero.reading import members, objects
from service.dintero.shared import Fetched, Shared
from service.dintero.wire import Place, place

_KEEP = 600.0  # seconds that profiles and checkout configuration are kept
_FRESH = 60.0  # seconds within which a profile that is not listed is not looked for again

Document = Mapping[str, object]


class Configuration(Protocol):
    """Where the two are read. Each raises `TransientFailure` when it cannot be read just now."""

    async def profile(self, profile_id: str) -> Document | None:
        """Return a session profile, empty when there is none to be seen; None where nobody looks."""

    async def checkout(self) -> Document | None:
        """Return the checkout's configuration, as `profile`."""


class Unread:
    """Where nobody looks: a file is explained on this machine alone."""

    async def profile(self, _profile_id: str) -> Document | None:
        """Return None."""
        return None

    async def checkout(self) -> Document | None:
        """Return None."""
        return None


class ReadConfiguration:
    """Reads them at the provider, and keeps them for ten minutes."""

    def __init__(self, access: Access, clock: Clock, *, checkout_url: str) -> None:
        """Raises `ValueError` when the URL is none."""
        self._access = access
        self._profiles_at = place(f"{checkout_url}/admin/session/profiles")
        self._checkout_at = place(f"{checkout_url}/admin/checkout")
        self._profiles = Shared(clock, self._fetch_profiles)
        self._checkout = Shared(clock, self._fetch_checkout)

    async def profile(self, profile_id: str) -> Document | None:
        """Return a session profile; see `Configuration`."""
        profiles = await self._profiles.get()
        if profiles and profile_id not in profiles and self._profiles.age() > _FRESH:
            self._profiles.forget(profiles)  # it may have been made since, and who delivers hangs on it
            profiles = await self._profiles.get()
        return profiles.get(profile_id, {})

    async def checkout(self) -> Document | None:
        """Return the checkout's configuration; see `Configuration`."""
        return await self._checkout.get()

    async def aclose(self) -> None:
        """Stop reading."""
        await self._profiles.aclose()
        await self._checkout.aclose()

    async def _fetch_profiles(self) -> Fetched[Mapping[str, Document]]:
        listed = await self._read(self._profiles_at, "reading the session profiles")
        return Fetched(value=_by_id(listed), keep_for=_KEEP)

    async def _fetch_checkout(self) -> Fetched[Document]:
        return Fetched(value=members(await self._read(self._checkout_at, "reading the checkout")), keep_for=_KEEP)

    async def _read(self, at: Place, doing: str) -> object:
        """Return a document; None when these credentials may not read it, which only means that it says nothing."""
        answer = await self._access.exchange("GET", at, doing=doing)
        if is_success(answer.status):
            return parsed(answer, doing)
        if answer.status in range(400, 500) and not is_for_now(answer.status):
            return None
        raise self._access.refused(answer, doing)


def _by_id(listed: object) -> Mapping[str, Document]:
    """Return profiles by their id, from a bare list or from one inside an object."""
    inside = members(listed)
    lists = (listed, *(inside.get(name) for name in ("profiles", "items", "data")))
    profiles = (
        (profile, profile.get("id") or profile.get("profile_id")) for found in lists for profile in objects(found)
    )
    return {key: profile for profile, key in profiles if isinstance(key, str)}
