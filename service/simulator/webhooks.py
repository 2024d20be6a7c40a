"""The account's webhook subscriptions: who hears of what, signed how, and gone after failures (dintero-api.md, 3b)."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from service.delivery import Clock
from service.dintero.webhook import webhook_signature
from service.simulator.documents import Json, instant, invalid, request_id, unknown
from service.simulator.keys import Keys
from service.simulator.notices import Notification, Outgoing

TRIES = 5
FAILURES = 5
"""Failed attempts in a row, of whatever, after which a subscription is deleted."""

EVENTS = ("checkout_authorization", "checkout_transaction")
_SHORT = ("id", "session_id", "merchant_reference", "created_at", "updated_at", "merchant_reference_2", "status")


@dataclass(slots=True, kw_only=True)
class _Subscription:
    document: Json  # without the secret
    secret: str
    failures: int = 0


def _unsent(_: Outgoing) -> None:
    """Be told, and do nothing."""


@dataclass(slots=True, kw_only=True)
class Webhooks:
    """The subscriptions of one account; `send` is given what is to be sent."""

    clock: Clock
    keys: Keys
    send: Callable[[Outgoing], None] = _unsent
    _subscriptions: dict[str, _Subscription] = field(default_factory=dict)

    def create(self, body: Any) -> Json:
        """Add a subscription, ping it, and return its document."""
        config = body.get("config") if isinstance(body, dict) else None
        if not isinstance(config, dict) or not str(config.get("url", "")).startswith(("https://", "http://")):
            raise invalid("config.url must be a URL")
        secret, events = config.get("secret"), body.get("events")
        if not isinstance(secret, dict) or secret.get("type") != "HMAC-SHA1" or not secret.get("secret"):
            raise invalid("config.secret must be of type HMAC-SHA1")
        if not isinstance(events, list) or not events or not set(events) <= set(EVENTS):
            raise invalid("events must be a list of events")
        at = instant(self.clock.now())
        document: Json = {
            "id": request_id(self.keys.random),
            "created_at": at,
            "created_by": self.keys.account.client_id,
            "updated_at": at,
            "active": True,
            "config": config | {"secret": {"type": "HMAC-SHA1"}},
            "events": events,
        }
        self._subscriptions[document["id"]] = _Subscription(document=document, secret=str(secret["secret"]))
        self.ping(document["id"])
        return document

    def listed(self) -> list[Json]:
        """Return the documents of all."""
        return [subscription.document for subscription in self._subscriptions.values()]

    def delete(self, subscription_id: str) -> None:
        """Take a subscription away."""
        if self._subscriptions.pop(subscription_id, None) is None:
            raise unknown("Subscription")

    def ping(self, subscription_id: str) -> None:
        """Send a subscription its own document."""
        if subscription_id not in self._subscriptions:
            raise unknown("Subscription")
        self._send(self._subscriptions[subscription_id], "ping", self._subscriptions[subscription_id].document, "")

    def notify(self, notification: Notification) -> None:
        """Tell every subscription of what it asked for."""
        for subscription in list(self._subscriptions.values()):
            for event in subscription.document["events"]:
                delivery = request_id(self.keys.random)
                if (about := _body(event, notification)) is not None:
                    head = {"account_id": self.keys.account.id, "event": event, "event_delivery": delivery}
                    self._send(subscription, event, head | about, (notification.transaction or {}).get("id", ""))

    def _send(self, subscription: _Subscription, event: str, document: Json, about: str) -> None:
        body = json.dumps(document, ensure_ascii=False).encode()
        delivery = document.get("event_delivery") or request_id(self.keys.random)
        self.send(
            Outgoing(
                point="webhook",
                about=about,
                method="POST",
                url=subscription.document["config"]["url"],
                body=body,
                headers={
                    "user-agent": "Dintero-Hook/1",
                    "content-type": "application/json",
                    "event": event,
                    "event-delivery": delivery,
                },
                tries=TRIES,
                sign=partial(_signature, subscription.secret, body),
                ended=partial(self._ended, subscription),
            )
        )

    def _ended(self, subscription: _Subscription, status: int | None) -> bool:
        """Count failures; any 2xx will do, and who fails too often is gone."""
        if status is not None and 200 <= status < 300:  # noqa: PLR2004
            subscription.failures = 0
            return True
        subscription.failures += 1
        if subscription.failures >= FAILURES:
            self._subscriptions.pop(subscription.document["id"], None)
        return subscription.document["id"] not in self._subscriptions


def _signature(secret: str, body: bytes, _: datetime, forged: bool) -> Mapping[str, str]:  # noqa: FBT001  see `Outgoing`
    return {"event-signature": webhook_signature("a stranger's own" if forged else secret, body)}


def _body(event: str, notification: Notification) -> Json | None:
    """Return what a webhook says besides its head, or None when this is not what it is about."""
    transaction = notification.transaction
    short = None if transaction is None else {key: transaction[key] for key in _SHORT if key in transaction}
    if event == "checkout_transaction":
        return None if short is None else {"transaction": short}
    if notification.event is not None:
        return None
    authorization = {
        "merchant_reference": notification.session["order"].get("merchant_reference"),
        "session_id": notification.session["id"],
        "transaction_id": None if transaction is None else transaction["id"],
        "error": notification.error,
    }
    said: Json = {"authorization": {key: value for key, value in authorization.items() if value is not None}}
    return said if transaction is None else said | {"transaction": transaction}
