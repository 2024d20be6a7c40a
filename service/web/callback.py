"""A session's signed callback in: what its signature covers is handed on as it came over the wire."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from service.delivery import Arrival, CallbackRequest, Unrecorded
from service.web.asgi import Handler
from service.web.intake import Intake


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Takes callbacks; their body means nothing, for no signature covers it."""

    authenticate: Callable[[CallbackRequest, datetime], Arrival | Unrecorded]
    intake: Intake

    def handlers(self) -> dict[str, Handler]:
        """Return who answers which method."""
        return {"GET": self.handle, "POST": self.handle}

    async def handle(self, request: Request) -> Response:
        """Answer one callback."""
        return await self.intake.take(request, "callback", lambda _, now: self.authenticate(_asked(request), now))


def _asked(request: Request) -> CallbackRequest:
    signatures = request.headers.getlist("dintero-signature")
    return CallbackRequest(
        method=request.method,
        raw_query=request.scope["query_string"].decode("latin-1"),
        signature=",".join(signatures) if signatures else None,
    )
