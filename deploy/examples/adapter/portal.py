"""A channel of one's own: puts invoices into the inbox of a customer portal. `DELIVERY_CHANNELS=portal:open_portal`."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2 as httpx

from service import delivery as d
from service.privacy import address_key, mask_address

_KINDS: dict[int, type[d.DeliveryFailure]] = {404: d.RecipientRefused, 413: d.MessageTooLarge}
_KINDS |= {400: d.PermanentFailure, 422: d.PermanentFailure, 429: d.TransientFailure, 503: d.TransientFailure}
_KINDS |= dict.fromkeys((401, 402, 403), d.AccountFailure)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalChannel:
    """Posts a message with its PDF; the portal takes each Idempotency-Key once."""

    client: httpx.AsyncClient
    context: d.ChannelContext
    name: str = "portal"
    template: str = "portal"  # the folder templates/portal
    guarantee: d.Guarantee = d.Guarantee.IDEMPOTENT
    reports: bool = False
    largest_document: int | None = 5_000_000
    pace: d.Pace | None = None

    def recipient(self, transaction: d.Transaction, *, to: str | None = None) -> d.Recipient:
        user = to or (transaction.billing.email if transaction.billing else None)
        if user is None:
            raise d.PermanentFailure("the transaction has no e-mail address, which customers sign in with")
        address = self.context.redirect_email or user
        return d.Recipient(
            address=address,
            key=address_key(self.context.account_id, address),
            masked=mask_address(address),
            redirected_from=mask_address(user) if address != user else None,
        )

    def compose(
        self, message: d.Message, document: bytes | None, recipient: d.Recipient, intent: d.Intent
    ) -> d.Composed:
        told = {"id": intent.key, "user": recipient.address, "subject": message.subject, "text": message.text}
        if document is not None:
            told |= {"pdf": base64.b64encode(document).decode(), "file_name": message.document_name}
        content = json.dumps(told).encode()
        digest = hashlib.sha256(content).hexdigest()
        return d.Composed(recipient=recipient, message_id=intent.key, content=content, sha256=digest)

    async def send(self, composed: d.Composed) -> d.Receipt:
        headers = {"content-type": "application/json", "idempotency-key": composed.message_id}
        try:
            answer = await self.client.post("/messages", content=composed.content, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise d.AccountFailure("no connection to the portal") from exc
        except httpx.HTTPError as exc:
            raise d.UnconfirmedFailure(f"the portal's answer was lost ({type(exc).__name__})") from exc
        if answer.is_success:
            return d.Receipt(answer=f"the portal answered {answer.status_code}")
        raise _KINDS.get(answer.status_code, d.UnconfirmedFailure)(f"the portal answered {answer.status_code}")

    async def check(self) -> str:
        return f"posts to {self.client.base_url.host}; not tried, for the portal has no question that sends nothing"


@asynccontextmanager
async def open_portal(context: d.ChannelContext) -> AsyncIterator[PortalChannel]:
    """Open the channel with its own settings DELIVERY_PORTAL_URL and DELIVERY_PORTAL_TOKEN."""
    given = dict(context.environ)
    if missing := {"DELIVERY_PORTAL_URL", "DELIVERY_PORTAL_TOKEN"} - set(given):
        raise ValueError(f"set {' and '.join(sorted(missing))}")
    authorization = {"authorization": f"Bearer {given['DELIVERY_PORTAL_TOKEN']}"}
    async with httpx.AsyncClient(base_url=given["DELIVERY_PORTAL_URL"], headers=authorization, timeout=30) as client:
        yield PortalChannel(client=client, context=context)
