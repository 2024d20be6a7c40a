"""The account's webhook subscriptions: which there are, and one more (dintero-api.md, 3b)."""

from collections.abc import Mapping, Sequence

from service.delivery import AccountFailure, Subscription, TransientFailure, UnconfirmedFailure
from service.dintero.access import FORBIDDEN, UNAUTHORIZED, Access, is_success, parsed
from service.dintero.reading import REFERENCE, elements, label, members, objects, text
from service.dintero.wire import Answer, AnswerLost, place

_LISTING = "listing the webhook subscriptions"
_CREATING = "creating the webhook subscription"


class Hooks:
    """Implements `service.delivery.Subscriptions`."""

    def __init__(self, access: Access, *, account_url: str) -> None:
        """`account_url` ends in `/accounts/{account id}`. Raises `ValueError` when it is none."""
        self._access = access
        self._at = place(f"{account_url}/hooks/subscriptions")

    async def subscriptions(self) -> tuple[Subscription, ...]:
        """Return those that there are; see `Subscriptions`."""
        answer = await self._access.exchange("GET", self._at, doing=_LISTING)
        self._must_have_right(answer, _LISTING, scope="read:hooks, or admin:hooks")
        if not is_success(answer.status):
            raise self._access.refused(answer, _LISTING)
        return tuple(_subscription(document) for document in _documents(parsed(answer, _LISTING)))

    async def subscribe(self, url: str, secret: str, events: Sequence[str]) -> Subscription:
        """Create one; see `Subscriptions`. The secret never shows in a failure."""
        body = {
            "config": {
                "url": url,
                "content_type": "application/json",
                "secret": {"type": "HMAC-SHA1", "secret": secret},
                "insecure_ssl": 0,
            },
            "events": list(events),
        }
        try:
            answer = await self._access.exchange("POST", self._at, doing=_CREATING, json=body)
        except AnswerLost as exc:
            raise UnconfirmedFailure(exc.reason) from exc
        self._must_have_right(answer, _CREATING, secret, scope="admin:hooks")
        if not is_success(answer.status):
            raise self._access.effect_refused(answer, _CREATING, secret)
        try:
            return _subscription(members(parsed(answer, _CREATING)))
        except TransientFailure as exc:
            raise UnconfirmedFailure(exc.reason) from exc

    def _must_have_right(self, answer: Answer, doing: str, *secrets: str, scope: str) -> None:
        if answer.status in (UNAUTHORIZED, FORBIDDEN):
            reason = self._access.reason(answer, doing, *secrets).rstrip(".")
            raise AccountFailure(f"{reason}. The API client needs the scope {scope}", retry_after=answer.retry_after)


def _documents(listed: object) -> list[Mapping[str, object]]:
    """Return the subscriptions in a list, bare or inside an object; raises `TransientFailure` when there is none."""
    if isinstance(listed, list):
        return list(objects(listed))
    for name in ("subscriptions", "items", "data"):
        if isinstance(found := members(listed).get(name), list):
            return list(objects(found))
    raise TransientFailure(f"Dintero answered with something that is no list when {_LISTING}")


def _subscription(document: Mapping[str, object]) -> Subscription:
    """Return a subscription; raises `TransientFailure` when it has no id. Unless it says so, it is active."""
    subscription_id = label(document.get("id"))
    if subscription_id is None:
        raise TransientFailure("Dintero answered with something that is no webhook subscription")
    events = (text(event, REFERENCE) for event in elements(document.get("events")))
    return Subscription(
        id=subscription_id,
        url=text(members(document.get("config")).get("url")) or "",
        events=tuple(event for event in events if event),
        active=document.get("active") is not False and not document.get("deleted_at"),
    )
