"""Who may come in, and what is signed with: bearer tokens and the signature secret of one account."""

import base64
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from service.delivery import Clock
from service.simulator.documents import Json, Refusal, instant, invalid, short_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A merchant's account and its Checkout API client."""

    id: str = "T12345678"
    client_id: str = "simulated-client"
    client_secret: str = "simulated-client-secret"  # noqa: S105  of nobody


@dataclass(slots=True, kw_only=True)
class Keys:
    """The account's tokens and secret. Tests may read and set everything public."""

    account: Account
    clock: Clock
    random: Random
    signature_secret: str = "simulated-signature-secret"  # noqa: S105  of nobody
    reads_configuration: bool = True  # whether the client's scopes cover /admin
    token_life: int = 14400  # seconds
    issued: int = 0
    _tokens: dict[str, datetime] = field(default_factory=dict)

    def issue(self, account_id: str, basic: str | None, body: Any) -> Json:
        """Return a bearer token for client credentials (`basic` is what follows `Basic ` in the header)."""
        expected = f"{self.account.client_id}:{self.account.client_secret}"
        if account_id != self.account.id or basic != base64.b64encode(expected.encode()).decode():
            raise Refusal(401, "Invalid client credentials")
        if not isinstance(body, dict) or body.get("grant_type") != "client_credentials":
            raise invalid("grant_type must be client_credentials")
        if not str(body.get("audience", "")).endswith(f"/v1/accounts/{account_id}"):
            raise invalid("audience must be the account's URL")
        token = f"eyJ.{short_id(self.random, 64)}.{short_id(self.random)}"
        self._tokens[token] = self.clock.now() + timedelta(seconds=self.token_life)
        self.issued += 1
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.token_life}

    def admits(self, token: str) -> bool:
        """Whether this bearer token is good now."""
        ends = self._tokens.get(token)
        return ends is not None and self.clock.now() < ends

    def revoke(self) -> None:
        """Make every token so far worthless."""
        self._tokens.clear()

    def rotate(self) -> Json:
        """Make a new signature secret, which signs from now on, and return its document."""
        self.signature_secret = short_id(self.random, 40)
        return self.signature()

    def signature(self) -> Json:
        """Return the document of the signature secret."""
        return {
            "id": self.account.id,
            "created_at": instant(self.clock.now()),
            "created_by": self.account.client_id,
            "signature": {"type": "v0-hmac-sha256", "secret": self.signature_secret},
        }
