"""A provider over real HTTP that keeps merchant references apart as Dintero does when it is asked to be strict."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.servers import Loopback, Reply, Seen, json_reply, serve

ACCOUNT = "T12345678"
STRICT = "strict-merchant-reference"
STRICT_SUCCESS = "strict-success-merchant-reference"


@dataclass(slots=True)
class Peer:
    """Its transactions, oldest first. What goes wrong is by merchant reference, for the next creation under it.

    `lost`: it takes effect, and the answer is not given; `ignored`: nor does it take effect; `hangs`: it takes effect,
    and the answer never ends; `status`: an error; `declined`: the answer is 200, and the transaction FAILED.
    Under `session REFERENCE`, `lost` and `hangs` strike the session of two steps.
    """

    transactions: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    trouble: dict[str, str | int] = field(default_factory=dict)
    blind: bool = False  # looking up finds nothing
    lax: bool = False  # two steps are not strict about references: Dintero documents it for one step only
    unlisted: bool = False  # looking up is answered with an error
    delay: float = 0.0
    loopback: Loopback | None = None

    @property
    def settings(self) -> dict[str, str]:
        assert self.loopback is not None
        return {
            "DELIVERY_ACCOUNT_ID": ACCOUNT,
            "DELIVERY_CLIENT_ID": "client",
            "DELIVERY_CLIENT_SECRET": "very-secret",
            "DELIVERY_CHECKOUT_URL": f"{self.loopback.url}/v1",
            "DELIVERY_API_URL": f"{self.loopback.url}/v1",
            "DELIVERY_SIGNATURE_SECRETS": "signed",
            "DELIVERY_PUBLIC_URL": "https://invoices.example.com",
            "DELIVERY_SMTP_URL": "smtp+insecure://127.0.0.1:1025",
            "DELIVERY_MAIL_FROM": "Butikken AS <faktura@butikken.example>",
            "DELIVERY_ALLOW_REAL_RECIPIENTS": "true",
            "DELIVERY_BRAND_NAME": "Butikken AS",
        }

    def created(self) -> list[str]:
        """Return the references of what did not fail, in the order of creation."""
        return [one["merchant_reference"] for one in self.transactions if one["status"] != "FAILED"]

    def posts(self) -> list[Seen]:
        assert self.loopback is not None
        return [seen for seen in self.loopback.seen if seen.target.endswith("/pay")]

    async def handle(self, seen: Seen) -> Reply:
        path, _, query = seen.target.partition("?")
        if path.endswith("/auth/token"):
            return json_reply({"access_token": "a-token", "expires_in": 14400})
        if path == "/v1/transactions":
            (wanted,) = parse_qs(query)["merchant_reference"]
            found = [one for one in self.transactions if one["merchant_reference"] == wanted]
            return json_reply({}, 503) if self.unlisted else json_reply([] if self.blind else found)
        if path in ("/v1/sessions", "/v1/sessions-profile"):
            return await self._open(seen, json.loads(seen.body))
        body = json.loads(seen.body)
        if path == "/v1/sessions/pay":
            return await self._pay(seen, body["session"]["order"], body["payment"])
        session = self.sessions[int(path.split("/")[3].removeprefix("s")) - 1]
        return await self._pay(seen, session["order"], body)

    async def _open(self, seen: Seen, session: dict[str, Any]) -> Reply:
        """Make a session; a strict one counts every session of its reference, whatever became of it."""
        reference = session["order"]["merchant_reference"]
        strict = seen.headers.get("dintero-feature-toggles")
        used = [one for one in self.sessions if one["order"]["merchant_reference"] == reference]
        if strict == STRICT_SUCCESS:
            used = [one for one in used if reference in self.created()]
        if used and strict in (STRICT, STRICT_SUCCESS) and not self.lax:
            return json_reply({"error": {"code": "INVALID_REQUEST_PARAMETER", "message": "reference is used"}}, 400)
        self.sessions.append(session)
        trouble = self.trouble.get(f"session {reference}")
        if trouble is not None:
            del self.trouble[f"session {reference}"]
            if trouble == "hangs":
                await asyncio.sleep(600)
            return Reply(cut=0)
        return json_reply({"id": f"s{len(self.sessions)}", "url": "https://checkout.example/s"})

    async def _pay(self, seen: Seen, order: dict[str, Any], payment: dict[str, Any]) -> Reply:
        await asyncio.sleep(self.delay)
        reference = order["merchant_reference"]
        trouble = self.trouble.pop(reference, None)
        if isinstance(trouble, int):
            return json_reply({"error": {"message": "no, kari@fjordbygg.example"}}, trouble)
        if trouble == "ignored":
            return Reply(cut=0)
        strict = seen.headers.get("dintero-feature-toggles")
        taken = [one for one in self.transactions if one["merchant_reference"] == reference]
        counted = taken if strict == STRICT else [o for o in taken if o["status"] != "FAILED"]
        if counted and not (self.lax and not seen.target.endswith("/sessions/pay")):
            return json_reply({"error": {"code": "INVALID_REQUEST_PARAMETER", "message": "reference is used"}}, 400)
        failed = trouble == "declined"
        error = {"code": "declined", "message": "kari@fjordbygg.example was not approved"}
        transaction = {
            "id": f"{ACCOUNT}.t{len(self.transactions) + 1}",
            "status": "FAILED" if failed else "AUTHORIZED",
            "amount": order["amount"],
            "currency": order["currency"],
            "merchant_reference": reference,
            "payment_product_type": payment["payment_product_type"],
            "events": [{"event": "AUTHORIZE", "success": not failed, **({"error": error} if failed else {})}],
        }
        self.transactions.append(transaction)
        if trouble == "lost":
            return Reply(cut=0)
        if trouble == "hangs":
            await asyncio.sleep(600)
        return json_reply({**transaction, "session_id": "s", "success": not failed, "actions": []})


@asynccontextmanager
async def open_peer() -> AsyncIterator[Peer]:
    peer = Peer()
    async with serve(peer.handle) as loopback:
        peer.loopback = loopback
        yield peer
