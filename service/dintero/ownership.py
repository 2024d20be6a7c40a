"""Who delivers: what each level of configuration says of a product, and the levels that are read apart."""

from collections.abc import Mapping

from service.delivery import ChannelDefault, ChannelFinding, Clock, DecidedBy, Resolution, Transaction
from service.dintero.access import Access, is_for_now, is_success, parsed
from service.dintero.reading import members, objects, text
from service.dintero.shared import Fetched, Shared
from service.dintero.wire import Place, place

KRAVIA = "kravia"

_KEEP = 600.0  # seconds that profiles and checkout configuration are kept
_FRESH = 60.0  # seconds within which a profile that is not listed is not looked for again
_LONGEST = 50
_GROUPED = "_grouped"
_OLD_NAMES = {"provider": KRAVIA}  # values of invoice_delivery_method


def channel_of(settings: object) -> str | None:
    """Return the `invoice_channel` in one object, also by its older name (dintero-api.md, section 8, row 7)."""
    given = members(settings)
    if channel := text(given.get("invoice_channel"), _LONGEST):
        return channel.lower()
    older = text(given.get("invoice_delivery_method"), _LONGEST)
    return _OLD_NAMES.get(older.lower(), older.lower()) if older else None


def configured(document: Mapping[str, object], product_type: str) -> str | None:
    """Return what the `configuration` of a session, profile or checkout says of a product: its own, then its option."""
    return _of_product(document, product_type) or _of_option(document, product_type)


def session_finding(session: Mapping[str, object], transaction: Mapping[str, object], product_type: str) -> str | None:
    """Return what a session says: its configuration of the product, the payment's own, its payment options."""
    return (
        _of_product(session, product_type)
        or channel_of(transaction.get("payment"))
        or channel_of(session.get("payment"))
        or _of_option(session, product_type)
    )


class Ownership:
    """Resolves who delivers; profiles and checkout are read when the transaction and its session say nothing."""

    def __init__(self, access: Access, clock: Clock, *, checkout_url: str, default: ChannelDefault) -> None:
        """`default` is INVOICE_CHANNEL. Raises `ValueError` when the URL is none."""
        self._access = access
        self._default = default
        self._profiles_at = place(f"{checkout_url}/admin/session/profiles")
        self._checkout_at = place(f"{checkout_url}/admin/checkout")
        self._profiles = Shared(clock, self._fetch_profiles)
        self._checkout = Shared(clock, self._fetch_checkout)

    async def resolve(self, transaction: Transaction) -> Resolution:
        """Return the first level that says anything; raises `TransientFailure` when one cannot be read just now."""
        if transaction.findings:
            first = transaction.findings[0]
            return Resolution(channel=first.value, decided_by=first.level)
        for finding in (self._by_profile, self._by_checkout):
            found = await finding(transaction)
            if found is not None:
                return Resolution(channel=found.value, decided_by=found.level)
        return Resolution(channel=self._by_setting(transaction.product_type), decided_by=DecidedBy.SETTING)

    async def aclose(self) -> None:
        """Stop reading."""
        await self._profiles.aclose()
        await self._checkout.aclose()

    async def _by_profile(self, transaction: Transaction) -> ChannelFinding | None:
        if transaction.profile_id is None:
            return None
        profiles = await self._profiles.get()
        if profiles and transaction.profile_id not in profiles and self._profiles.age() > _FRESH:
            self._profiles.forget(profiles)  # it may have been made since, and who delivers hangs on it
            profiles = await self._profiles.get()
        found = configured(profiles.get(transaction.profile_id, {}), transaction.product_type)
        return ChannelFinding(level=DecidedBy.PROFILE, value=found) if found else None

    async def _by_checkout(self, transaction: Transaction) -> ChannelFinding | None:
        found = configured(await self._checkout.get(), transaction.product_type)
        return ChannelFinding(level=DecidedBy.CHECKOUT, value=found) if found else None

    def _by_setting(self, product_type: str) -> str:
        fallback = None if product_type.endswith(_GROUPED) else self._default.default
        return dict(self._default.by_product).get(product_type) or fallback or KRAVIA

    async def _fetch_profiles(self) -> Fetched[Mapping[str, Mapping[str, object]]]:
        listed = await self._read(self._profiles_at, "reading the session profiles")
        return Fetched(value=_by_id(listed), keep_for=_KEEP)

    async def _fetch_checkout(self) -> Fetched[Mapping[str, object]]:
        return Fetched(value=members(await self._read(self._checkout_at, "reading the checkout")), keep_for=_KEEP)

    async def _read(self, at: Place, doing: str) -> object:
        """Return a document; None when these credentials may not read it, which only means that it says nothing."""
        answer = await self._access.exchange("GET", at, doing=doing)
        if is_success(answer.status):
            return parsed(answer, doing)
        if answer.status in range(400, 500) and not is_for_now(answer.status):
            return None
        raise self._access.refused(answer, doing)


def _by_id(listed: object) -> Mapping[str, Mapping[str, object]]:
    """Return profiles by their id, from a bare list or from one inside an object."""
    inside = members(listed)
    lists = (listed, *(inside.get(name) for name in ("profiles", "items", "data")))
    profiles = (
        (profile, profile.get("id") or profile.get("profile_id")) for found in lists for profile in objects(found)
    )
    return {key: profile for profile, key in profiles if isinstance(key, str)}


def _of_product(document: Mapping[str, object], product_type: str) -> str | None:
    product, _, kind = product_type.partition(".")
    return channel_of(members(members(document.get("configuration")).get(product)).get(kind))


def _of_option(document: Mapping[str, object], product_type: str) -> str | None:
    options = objects(members(document.get("configuration")).get("payment_options"))
    ours = (o for o in options if product_type in (o.get("type"), o.get("payment_product_type")))
    return next((found for option in ours if (found := channel_of(option.get("details")))), None)
