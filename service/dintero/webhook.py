"""Who sent an account webhook: the provider's signature over the body; and the little that is taken from the body."""

import hmac
from collections.abc import Mapping
from datetime import datetime

from service.delivery import Arrival, Forged, Unrecorded, Unusable, WebhookRequest
from service.dintero.levels import KRAVIA
from service.dintero.reading import document, identifier, members, text

WEBHOOK_PATH = "/webhooks/dintero"
"""What follows the public URL's own path."""

_AUTHORIZATION = "checkout_authorization"
_TRANSACTION = "checkout_transaction"
WEBHOOK_EVENTS = (_AUTHORIZATION, _TRANSACTION)
"""What we want to be told of; dintero-api.md, 3b."""

Document = Mapping[str, object]


def webhook_signature(secret: str, body: bytes) -> str:
    """Return the `event-signature` header of a webhook with this body, as the provider would send it."""
    return hmac.digest(secret.encode(), body, "sha1").hex()


class WebhookAuthenticator:
    """Tells the provider's webhooks from anybody else's. They carry no time, so their age says nothing."""

    def __init__(self, *, account_id: str, secrets: tuple[str, ...]) -> None:
        self._account_id = account_id
        self._secrets = secrets

    def arrival(self, request: WebhookRequest, now: datetime) -> Arrival | Unrecorded:
        """Return what is recorded of an authentic webhook, or why nothing is.

        Raises `Forged`, then `Unusable`. Of the body only the id, the account and the words for the event and the
        product are read, and the last two decide no more than whether anything is recorded.
        """
        self._check(request)
        told = _parsed(request.body)
        event = told.get("event") or request.event  # a ping's body names none
        if event == "ping":
            return Unrecorded.PING
        if event not in WEBHOOK_EVENTS or _is_about_another_product(told):
            return Unrecorded.IGNORED
        if told.get("account_id") not in (None, self._account_id):
            raise Unusable("another_account")
        found = _ids(told)
        if not found and members(told.get("authorization")).get("error"):
            return Unrecorded.ERROR_REPORT
        usable = [identifier(value) for value in found]
        if len(set(usable)) != 1 or usable[0] is None:
            raise Unusable("no_usable_id")
        # A transaction that changed may have been voided or captured: one that we are done with is looked at again.
        changed = event == _TRANSACTION
        return Arrival(transaction_id=usable[0], account_id=self._account_id, at=now, event=changed, source="webhook")

    def _check(self, request: WebhookRequest) -> None:
        if not request.signature:
            raise Forged("signature_missing")
        given = request.signature.strip().lower().encode(errors="replace")
        # The digest is compared with every one: the time taken says nothing about which of them came close.
        wanted = [webhook_signature(secret, request.body).encode() for secret in self._secrets]
        matches = [hmac.compare_digest(given, one) for one in wanted]
        if not any(matches):
            raise Forged("signature_wrong")


def _parsed(body: bytes) -> Document:
    try:
        told = document(body)
    except ValueError as exc:
        raise Unusable("no_json") from exc
    if not isinstance(told, dict):
        raise Unusable("no_json_object")
    return told


def _ids(told: Document) -> list[object]:
    """Return what the members that name the transaction say, as far as they say anything."""
    named = (members(told.get("authorization")).get("transaction_id"), members(told.get("transaction")).get("id"))
    return [value for value in named if value not in (None, "")]


def _is_about_another_product(told: Document) -> bool:
    transaction = members(told.get("transaction"))
    words = [text(transaction.get(name)) for name in ("payment_product", "payment_product_type")]
    said = [word for word in words if word is not None]
    return bool(said) and not any(word.startswith(KRAVIA) for word in said)
