"""The provider account's webhooks in: the body, which is what is signed, is handed on byte for byte."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from service.delivery import Arrival, Unrecorded, WebhookRequest
from service.web.asgi import Handler
from service.web.intake import Intake


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """Takes webhooks, into the same record as callbacks."""

    authenticate: Callable[[WebhookRequest, datetime], Arrival | Unrecorded]
    intake: Intake

    def handlers(self) -> dict[str, Handler]:
        """Return who answers which method."""
        return {"POST": self.handle}

    async def handle(self, request: Request) -> Response:
        """Answer one webhook."""
        return await self.intake.take(
            request, "webhook", lambda body, now: self.authenticate(_delivered(request, body), now)
        )


def _delivered(request: Request, body: bytes) -> WebhookRequest:
    headers = request.headers
    return WebhookRequest(body=body, signature=headers.get("event-signature"), event=headers.get("event"))
