"""Access tokens for a relay that takes no passwords (XOAUTH2): fetched, kept until they end, one request at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2 as httpx

from service.delivery import AccountFailure, Clock
from service.privacy import scrub

_EARLY = 60.0  # seconds before its end that a token is used no more
_SHORTEST = 300.0  # seconds that one counts for where the endpoint does not say how long it lasts
_TIMEOUT = httpx.Timeout(20.0, connect=10.0)
_WHOLE = 30.0  # seconds: all mails wait for one that drips
_REFUSED = frozenset({400, 401, 403})
_WHERE = "the token endpoint (SMTP_OAUTH_TOKEN_URL)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token is asked for with: our own secret (client credentials), or a refresh token that a person got."""

    token_url: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)
    scope: str | None = None

    def form(self, newest: str | None = None) -> dict[str, str]:
        """Return the fields of the request (RFC 6749, 4.4.2 and 6); `newest` is a refresh token that came later."""
        refresh_token = newest or self.refresh_token
        kind = "refresh_token" if refresh_token else "client_credentials"
        given = {
            "grant_type": kind,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "refresh_token": refresh_token,
            "scope": self.scope,
        }
        return {name: value for name, value in given.items() if value}


class Tokens:
    """The tokens of one account; every failure is an `AccountFailure`, for no mail goes without one."""

    def __init__(self, grant: Grant, client: httpx.AsyncClient, clock: Clock) -> None:
        self._grant = grant
        self._client = client
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._newest: str | None = None  # the refresh token that came last; a restart begins with the one that is set
        self._until = 0.0

    async def get(self) -> str:
        """Return a token that is good for another minute at least."""
        async with self._lock:
            if self._token is None or self._clock.monotonic() >= self._until:
                self._token, lasts = await self._fetch()
                self._until = self._clock.monotonic() + max(lasts - _EARLY, 0.0)
            return self._token

    def forget(self, token: str) -> None:
        """Use a token no more: a relay has refused it."""
        if self._token == token:
            self._token = None

    async def _fetch(self) -> tuple[str, float]:
        form = self._grant.form(self._newest)
        try:
            async with asyncio.timeout(_WHOLE):
                answer = await self._client.post(self._grant.token_url, data=form)
        except (httpx.HTTPError, TimeoutError) as exc:
            raise AccountFailure(f"{_WHERE} does not answer: {type(exc).__name__}") from exc
        try:
            said = answer.json()
        except ValueError:
            said = None
        said = said if isinstance(said, dict) else {}
        if answer.status_code in _REFUSED:
            self._newest = None
            error = said.get("error")
            word = scrub(error)[:60] if isinstance(error, str) else "no reason given"
            raise AccountFailure(f"{_WHERE} refuses us ({answer.status_code}, {word}): look at SMTP_OAUTH_…")
        token, lasts = said.get("access_token"), said.get("expires_in")
        if answer.status_code != httpx.codes.OK or not isinstance(token, str) or not token.isascii() or not token:
            raise AccountFailure(f"{_WHERE} answered {answer.status_code} without a token")
        if "refresh_token" in form and isinstance(newest := said.get("refresh_token"), str):
            self._newest = newest or self._newest
        try:
            return token, float(lasts)  # type: ignore[arg-type]  # some say it as a text
        except (TypeError, ValueError):
            return token, _SHORTEST


@asynccontextmanager
async def open_tokens(grant: Grant | None, clock: Clock) -> AsyncIterator[Tokens | None]:
    """Open what fetches tokens; nothing is fetched before one is needed, and None without a grant."""
    if grant is None:
        yield None
        return
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=_TIMEOUT) as client:
        yield Tokens(grant, client, clock)
