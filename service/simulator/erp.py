"""An ERP on loopback that takes invoices posted by the channel `http`: it checks them as one should, and keeps them."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.delivery import Clock
from service.serving import listen, origin, serving
from service.simulator.answers import answer_instead
from service.simulator.deeds import Answer, Trouble
from service.simulator.faults import Faults

_PATH = "/invoices"
_TOLERANCE = 300.0  # seconds by which a signature's time may differ from ours
_REDIRECT = 307


class NotTaken(Exception):
    """What was posted will not do. `status` is the answer, the text says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """An invoice that was taken. `key` is the Idempotency-Key; `document` is the PDF, None when it came as a link."""

    number: int  # from 1
    key: str
    kind: str
    invoice_number: str
    buyer: str
    amount: int  # in minor units
    currency: str
    due_date: str
    document: bytes | None
    link: str | None
    content: str  # as it came, without the PDF
    received_at: datetime


@dataclass(slots=True, kw_only=True)
class ErpServer:
    """The ERP as the demo and tests see it: where it is, what it took, and how often each came."""

    clock: Clock
    secret: str
    faults: Faults
    url: str = ""
    inbox: list[Posted] = field(default_factory=list)
    came: dict[str, int] = field(default_factory=dict)  # by key, how often
    refused: list[str] = field(default_factory=list)  # why, oldest first
    arrived: Callable[[Posted], None] = lambda _: None

    def take(self, request: Request, body: bytes) -> None:
        """Check what was posted, and keep it unless it is here already; raises `NotTaken`."""
        key = request.headers.get("idempotency-key", "")
        if not key:
            raise NotTaken(400, "there is no Idempotency-Key")
        posted = _read(body, number=len(self.inbox) + 1, key=key, at=self.clock.now())
        self.came[key] = self.came.get(key, 0) + 1
        if self.came[key] == 1:
            self.inbox.append(posted)
            self.arrived(posted)

    def verify(self, header: str | None, body: bytes) -> None:
        """Check who posted it, and when; raises `NotTaken`."""
        pairs = [part.partition("=")[::2] for part in (header or "").split(",")]
        times = [value for name, value in pairs if name == "t" and value.isascii() and value.isdecimal()]
        if len(times) != 1:
            raise NotTaken(401, "it is not signed")
        good = hmac.new(self.secret.encode(), f"{times[0]}.".encode() + body, hashlib.sha256).hexdigest()
        if not any(hmac.compare_digest(good.encode(), value.encode()) for name, value in pairs if name == "v1"):
            raise NotTaken(401, "it is signed with another secret")
        if abs(self.clock.now().timestamp() - int(times[0])) > _TOLERANCE:
            raise NotTaken(401, "it was signed at another time")


def _read(body: bytes, *, number: int, key: str, at: datetime) -> Posted:
    """Return what was posted as a value; raises `NotTaken` for what an ERP could not book."""
    try:
        told = json.loads(body)
        document = told["document"]
        buyer = told["buyer"] or {}
        encoded = document.pop("base64", None) if document else None
        person = f"{buyer.get('first_name') or ''} {buyer.get('last_name') or ''}".strip()
        posted = Posted(
            number=number,
            key=key,
            kind=str(told["kind"]),
            invoice_number=str(told["invoice_number"]),
            buyer=str(buyer.get("business_name") or person or "nobody"),
            amount=int(told["amount"]),
            currency=str(told["currency"]),
            due_date=str(told["due_date"]),
            document=None if encoded is None else base64.b64decode(encoded, validate=True),
            link=document.get("link") if document else None,
            content=json.dumps(told, indent=2, ensure_ascii=False),
            received_at=at,
        )
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as exc:
        raise NotTaken(400, "it cannot be read") from exc
    if posted.document is not None and document["sha256"] != hashlib.sha256(posted.document).hexdigest():
        raise NotTaken(422, "the PDF is not the one that it names")
    return posted


def erp_app(server: ErpServer) -> Starlette:
    """Return the ERP as an application."""

    async def post(request: Request) -> Response:
        body = await request.body()
        trouble = server.faults.take(Trouble, "erp")
        try:
            server.verify(request.headers.get("delivery-signature"), body)
            if trouble is None or trouble.keep:
                server.take(request, body)
        except NotTaken as exc:
            server.refused.append(str(exc))
            return _answer({"error": str(exc)}, exc.status)
        if trouble is None:
            return _answer({"status": "booked"}, 200)
        return await _instead(server, trouble, str(request.url))

    async def options(request: Request) -> Response:
        try:
            server.verify(request.headers.get("delivery-signature"), await request.body())
        except NotTaken as exc:
            server.refused.append(str(exc))
            return _answer({"error": str(exc)}, exc.status)
        return Response(status_code=204, headers={"allow": "OPTIONS, POST"})

    return Starlette(routes=[Route(_PATH, post, methods=["POST"]), Route(_PATH, options, methods=["OPTIONS"])])


async def _instead(server: ErpServer, trouble: Trouble, url: str) -> Response:
    if trouble.lost:
        return answer_instead(Answer(lost=trouble.lost), None, server.clock)
    if trouble.delay:
        await server.clock.sleep(trouble.delay)
    headers = {"retry-after": str(trouble.retry_after)} if trouble.retry_after is not None else {}
    if trouble.status == _REDIRECT:
        headers["location"] = url
    return _answer({"status": trouble.about}, trouble.status, headers)


def _answer(told: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(told), status, headers, "application/json")


@asynccontextmanager
async def open_erp(server: ErpServer, *, port: int = 0) -> AsyncIterator[ErpServer]:
    """Listen on loopback (0: a free port) and set the server's `url`, the one to post to."""
    sock = listen(port=port)
    server.url = f"{origin(sock)}{_PATH}"
    async with serving(erp_app(server), sock):
        yield server
