"""The channel that all SMS providers share: who gets a text, the text itself, and one request over plain HTTP.

No provider promises to take a text once when it is handed over twice (channels.md 2.3): a lost answer is in doubt until
a report proves the message.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import httpx2 as httpx

from service.channels.gsm7 import is_gsm7, plain, size
from service.channels.numbers import SenderKind, mobile, sender_kind
from service.channels.retry_after import wait
from service.channels.sms_answers import failure, when_trying
from service.channels.sms_provider import Answer, Provider, Sms
from service.delivery import (
    AccountFailure,
    ChannelContext,
    Clock,
    Composed,
    DeliveryFailure,
    Guarantee,
    Intent,
    Message,
    Pace,
    PermanentFailure,
    Purpose,
    Receipt,
    Recipient,
    Report,
    ReportRequest,
    Transaction,
    TransientFailure,
    UnconfirmedFailure,
)
from service.privacy import address_key, mask_address

_CONNECT = 10.0  # seconds
_WHOLE = 30.0
_KEPT = 4.0  # seconds that an idle connection is kept: one that is closed under a request leaves that in doubt
_CONNECTIONS = 32
_LONGEST_ANSWER = 65536  # bytes
_SUCCESS = range(200, 300)
_WITHOUT_DOCUMENT: Final = frozenset({Purpose.NOTICE, Purpose.CANCELLED})


class SmsChannel:
    """`Channel` and `Reporting` over one provider, opened by `open_sms`."""

    template = "sms"
    guarantee = Guarantee.AT_LEAST_ONCE
    reports = True
    largest_document: int | None = 0
    pace: Pace | None = None

    def __init__(
        self, provider: Provider, *, account_id: str, redirect_to: str | None, client: httpx.AsyncClient, clock: Clock
    ) -> None:
        self.name = provider.name
        self._provider = provider
        self._account_id = account_id
        self._redirect_to = redirect_to
        self._client = client
        self._clock = clock

    def recipient(self, transaction: Transaction, *, to: str | None = None) -> Recipient:
        """Return the billing party's mobile, else the customer's; raises `PermanentFailure`."""
        found = self._number(transaction, to)
        if found is None:
            whose = "the number given is no" if to is not None else "the transaction has no"
            raise PermanentFailure(f"{whose} mobile number that an SMS can go to")
        address = self._redirect_to or found
        return Recipient(
            address=address,
            key=address_key(self._account_id, address),
            masked=mask_address(address),
            redirected_from=mask_address(found) if self._redirect_to else None,
        )

    def _number(self, transaction: Transaction, to: str | None) -> str | None:
        parties = [party for party in (transaction.billing, transaction.customer) if party is not None]
        country = next((party.country for party in parties if party.country), None)
        if to is not None:
            return mobile(to, country)
        numbers = (mobile(party.phone_number, party.country or country) for party in parties)
        return next((number for number in numbers if number is not None), None)

    def compose(self, message: Message, document: bytes | None, recipient: Recipient, intent: Intent) -> Composed:
        """Return the request's body; nothing in it depends on anything but the arguments and the settings."""
        if message.link is None and (document is not None or intent.purpose not in _WITHOUT_DOCUMENT):
            raise PermanentFailure("an SMS needs the invoice page: set DELIVERY_LINK_KEY")
        text = plain(message.text)
        if message.link is not None and message.link not in text:
            text = f"{text}\n{message.link}"
        if len(text) > self._provider.longest:
            raise PermanentFailure(f"the text has {len(text)} characters; {self._provider.title} takes fewer")
        sms = Sms(to=recipient.address, text=text, key=intent.key, gsm7=is_gsm7(text))
        seen = "\0".join((self._provider.sender or "", recipient.address, text))
        return Composed(
            recipient=recipient,
            message_id=intent.key,
            content=self._provider.body(sms),
            sha256=hashlib.sha256(seen.encode()).hexdigest(),
        )

    async def send(self, composed: Composed) -> Receipt:
        """Post it once; raises as `Channel.send`. Without an answer it is in doubt, unless nothing was handed over."""
        answer = await self._ask("POST", self._provider.url, composed.content)
        remote_id = self._provider.remote_id(answer) if answer.status in _SUCCESS else None
        if remote_id is None:
            raise failure(self._provider, answer)
        return Receipt(answer=f"{self._provider.title} answered {answer.status}", remote_id=remote_id)

    async def check(self) -> str:
        """Ask for the account where the provider has such a question; return what was found, or raise as `send`."""
        host = httpx.URL(self._provider.url).host
        found = [f"{self._provider.title} at {host}", self._from()]
        if self._provider.probe is None:
            return ", ".join((*found, "not tried: it has no question that sends nothing"))
        try:
            answer = await self._ask("GET", self._provider.probe, None)
            if answer.status not in _SUCCESS:
                raise failure(self._provider, answer)
        except DeliveryFailure as exc:
            raise when_trying(exc) from exc
        return ", ".join((*found, "signed in"))

    def _from(self) -> str:
        sender = self._provider.sender
        if sender is None:
            return "from its messaging service"
        if sender_kind(sender) is SenderKind.NAME:
            return f"from {sender} (a name that needs Traficom's authorisation to be shown in Finland)"
        return f"from a {sender_kind(sender)}"

    async def read_reports(self, request: ReportRequest, *, now: datetime) -> tuple[Report, ...]:
        """Return what a report says, once it is proved; raises `Forged`, `Stale` and `Unusable`."""
        return self._provider.reports(request, now)

    async def _ask(self, method: str, url: str, content: bytes | None) -> Answer:
        headers = {"authorization": self._provider.authorization, "accept": "application/json"}
        if content is not None:
            headers["content-type"] = self._provider.content_type
        title = self._provider.title
        try:
            async with asyncio.timeout(_WHOLE):
                request = self._client.stream(method, url, content=content, headers=headers)
                async with request as response:
                    after = wait(response.headers.get("retry-after"), self._clock.now())
                    return Answer(status=response.status_code, body=await _body(response), retry_after=after)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:  # DNS and TLS too
            raise AccountFailure(f"no connection to {title}") from exc
        except (httpx.PoolTimeout, httpx.LocalProtocolError, httpx.UnsupportedProtocol) as exc:
            raise TransientFailure(f"{title} was not asked ({type(exc).__name__})") from exc
        except (httpx.HTTPError, OSError) as exc:  # a time-out is one of the last
            raise UnconfirmedFailure(f"the answer of {title} was lost ({type(exc).__name__})") from exc


async def _body(response: httpx.Response) -> bytes:
    """Return what there is of an answer's body: where it broke off, its status says the rest."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _LONGEST_ANSWER:
                break
    except httpx.HTTPError:
        return b""
    return bytes(body)


@asynccontextmanager
async def open_sms(provider: Provider, context: ChannelContext) -> AsyncIterator[SmsChannel]:
    """Open the channel; no connection is made before the first text."""
    timeout = httpx.Timeout(_WHOLE, connect=_CONNECT)
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS, keepalive_expiry=_KEPT)
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=timeout, limits=limits) as client:
        yield SmsChannel(
            provider,
            account_id=context.account_id,
            redirect_to=context.redirect_phone,
            client=client,
            clock=context.clock,
        )


def parts(text: str) -> int:
    """Return how many parts a text is charged as, once it is made plain."""
    return size(plain(text)).parts
