"""The bearer token: fetched by one, kept, fetched anew after a 401, and sent to the provider's own origins only."""

import base64
import re
from collections import deque

from service.delivery import (
    AccountFailure,
    Clock,
    DeliveryFailure,
    PermanentFailure,
    TransientFailure,
    UnconfirmedFailure,
)
from service.dintero.reading import document, members, seconds, text
from service.dintero.shared import Fetched, Shared
from service.dintero.wire import DOCUMENT_LIMIT, Answer, AnswerLost, Place, Wire, place
from service.privacy import scrub

UNAUTHORIZED, FORBIDDEN, REQUEST_TIMEOUT, TOO_MANY = 401, 403, 408, 429

_ACCOUNTS = (UNAUTHORIZED, FORBIDDEN, TOO_MANY)  # our account is at fault, not what was asked for

_LONGEST_MARGIN = 600.0  # seconds before its end that a token is no longer used
_WITHOUT_EXPIRY = 60.0  # seconds that a token is kept whose end was not given
_TOKEN = re.compile(r"[\x21-\x7e]+")
_FETCHING = "fetching an access token"


class Access:
    """Sends requests as the merchant's API client."""

    def __init__(
        self,
        wire: Wire,
        clock: Clock,
        *,
        account_id: str,
        client_id: str,
        client_secret: str,
        checkout_url: str,
        api_url: str,
    ) -> None:
        """Raise `ValueError` when one of the two URLs is none."""
        self._wire = wire
        self.account_url = f"{api_url.rstrip('/')}/accounts/{account_id}"
        self._token_place = place(f"{self.account_url}/auth/token")
        self._origins = {place(checkout_url).origin, self._token_place.origin}
        self._basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        # What may never show in a reason: the last tokens too, for an answer to an old one may quote it.
        self._secrets = (client_secret, self._basic)
        self._tokens: deque[str] = deque(maxlen=4)
        self._token = Shared(clock, self._fetch_token)

    def owns(self, to: Place) -> bool:
        """Return whether the token may be sent there (design.md, invariant 5)."""
        return to.origin in self._origins

    async def token(self) -> str:
        """Return the token; raises `AccountFailure` when the credentials are refused, else `TransientFailure`."""
        return await self._token.get()

    async def exchange(
        self,
        method: str,
        to: Place,
        *,
        doing: str,
        json: object = None,
        limit: int = DOCUMENT_LIMIT,
        whole: float | None = None,
        toggles: str | None = None,
    ) -> Answer:
        """Return the answer, with the token where it may go; after a 401 it is fetched anew and asked once more.

        `toggles` are the provider's own (dintero-api.md, 1), which go where the token does.

        Raises as `Wire.exchange` and `token` do.
        """
        if not self.owns(to):
            return await self._wire.exchange(method, to, doing=doing, headers={}, json=json, limit=limit, whole=whole)
        for last in (False, True):
            token = await self.token()
            headers = {"Authorization": f"Bearer {token}"} | ({"Dintero-Feature-Toggles": toggles} if toggles else {})
            answer = await self._wire.exchange(
                method, to, doing=doing, headers=headers, json=json, limit=limit, whole=whole
            )
            if answer.status != UNAUTHORIZED or last:
                break
            self._token.forget(token)
        return answer

    def reason(self, answer: Answer, doing: str, *secrets: str) -> str:
        """Return one line on an answer that is not what was hoped for, with the provider's own words, scrubbed."""
        said = _said(answer.body)
        words = f"Dintero answered {answer.status} when {doing}" + (f": {said}" if said else "")
        return scrub(words, (*self._secrets, *self._tokens, *secrets))

    def refused(self, answer: Answer, doing: str) -> TransientFailure:
        """Return what an answer that refuses to tell something means: our account is at fault, or come again.

        Too many requests are the account's: all that it asks waits, and not only who happened to hear of it.
        """
        words = self.reason(answer, doing)
        if answer.status in _ACCOUNTS:
            return AccountFailure(words, retry_after=answer.retry_after)
        return TransientFailure(words, retry_after=answer.retry_after)

    def effect_refused(self, answer: Answer, doing: str, *secrets: str) -> DeliveryFailure:
        """Return what an answer other than a success means for an effect that was asked for."""
        words = self.reason(answer, doing, *secrets)
        if answer.status in _ACCOUNTS:
            return AccountFailure(words, retry_after=answer.retry_after)
        if answer.status in range(300, 400):
            return TransientFailure(words, retry_after=answer.retry_after)
        if answer.status in range(400, 500) and answer.status != REQUEST_TIMEOUT:
            return PermanentFailure(words)
        return UnconfirmedFailure(words)  # a 5xx may come after the effect

    async def aclose(self) -> None:
        """Stop fetching."""
        await self._token.aclose()

    async def _fetch_token(self) -> Fetched[str]:
        answer = await self._ask_for_token()
        if not is_success(answer.status):
            ours = answer.status == TOO_MANY or not is_for_now(answer.status)
            failure = AccountFailure if ours else TransientFailure
            raise failure(self.reason(answer, _FETCHING), retry_after=answer.retry_after)
        given = members(parsed(answer, _FETCHING))
        token = given.get("access_token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise TransientFailure(f"Dintero answered without a usable token when {_FETCHING}")
        self._tokens.append(token)
        return Fetched(value=token, keep_for=_keep_for(given.get("expires_in")))

    async def _ask_for_token(self) -> Answer:
        headers = {"Authorization": f"Basic {self._basic}"}
        body = {"grant_type": "client_credentials", "audience": self.account_url}
        try:
            return await self._wire.exchange("POST", self._token_place, doing=_FETCHING, headers=headers, json=body)
        except AnswerLost as exc:
            raise TransientFailure(exc.reason) from exc  # of what the token was for, nothing was handed over


def is_success(status: int) -> bool:
    """Return whether a status is one of the 2xx."""
    return status in range(200, 300)


def is_for_now(status: int) -> bool:
    """Return whether a status means that the same request may do later: the server's trouble, or too many of ours."""
    return status in range(500, 600) or status in (REQUEST_TIMEOUT, TOO_MANY)


def parsed(answer: Answer, doing: str) -> object:
    """Return the JSON of an answer; raises `TransientFailure` when it is none, for a gateway may answer HTML."""
    try:
        return document(answer.body)
    except ValueError as exc:
        raise TransientFailure(f"Dintero answered {answer.status} without JSON when {doing}") from exc


def _keep_for(expires_in: object) -> float:
    life = seconds(expires_in)
    return _WITHOUT_EXPIRY if life is None else life - min(_LONGEST_MARGIN, life / 10)


def _said(body: bytes) -> str | None:
    """Return code and message of an error document, as far as there are any (dintero-api.md, section 1)."""
    try:
        error = members(document(body)).get("error")
    except ValueError:
        return None
    parts = (
        [text(members(error).get(name)) for name in ("code", "message")] if isinstance(error, dict) else [text(error)]
    )
    return ": ".join(part for part in parts if part) or None
