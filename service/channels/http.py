"""An invoice as JSON to a URL of the merchant's: an ERP, an archive, anything that takes a signed POST.

The endpoint is told the same `Idempotency-Key` for the same invoice, however often it comes: a lost answer does no
harm.
"""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar

import httpx2 as httpx

from service.channels import UnusableSettings
from service.channels.private_addresses import NotPublic, addresses_of
from service.channels.retry_after import wait
from service.delivery import (
    AccountFailure,
    Brand,
    ChannelContext,
    Clock,
    Composed,
    DeliveryFailure,
    Guarantee,
    Intent,
    Message,
    MessageTooLarge,
    Pace,
    Party,
    PermanentFailure,
    Purpose,
    Receipt,
    Recipient,
    Transaction,
    TransientFailure,
    UnconfirmedFailure,
)
from service.privacy import address_key, scrub

SIGNATURE: Final = "delivery-signature"
"""The header with `t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`, a `v1` for each secret."""
VERSION: Final = 1
"""Of the document that is posted; fields may be added under the same one."""

T = TypeVar("T")
_PREFIX = "DELIVERY_"
_CONNECT = 10.0  # seconds
_WHOLE = 60.0
_SUCCESS = range(200, 300)
_REDIRECTS = range(300, 400)
_REFUSALS = range(400, 500)
_DONE, _TOO_LARGE, _GONE = 409, 413, 410
_ACCOUNT = frozenset({401, 402, 403, 407})
_FOR_NOW = frozenset({425, 429, 503})
_IN_DOUBT = frozenset({408})
_KINDS = {
    Purpose.FIRST: "invoice",
    Purpose.REPEAT: "invoice",  # the very same bytes
    Purpose.RESEND: "copy",
    Purpose.COURTESY: "courtesy",
    Purpose.CANCELLED: "cancelled",
    Purpose.NOTICE: "notice",
}


class _As(StrEnum):
    """How the PDF goes along."""

    BASE64 = "base64"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where it is posted to. `url` has no password in it; `secrets` sign, each of them."""

    url: httpx.URL
    secrets: tuple[bytes, ...]
    document: _As
    allow_private: bool
    seller: Brand | None = None

    @property
    def host(self) -> str:
        """The host as it is asked for, in ASCII: Python would spell some names otherwise, and reach another's."""
        return self.url.raw_host.decode("ascii")

    @property
    def port(self) -> int:
        """The port, also where the URL names none."""
        return self.url.port or (443 if self.url.scheme == "https" else 80)


class HttpChannel:
    """`Channel` to one endpoint, opened by `open_http`."""

    name = "http"
    template = ""
    guarantee = Guarantee.IDEMPOTENT
    reports = False
    pace: Pace | None = None

    def __init__(self, *, account_id: str, endpoint: Endpoint, client: httpx.AsyncClient, clock: Clock) -> None:
        self._account_id = account_id
        self._endpoint = endpoint
        self._client = client
        self._clock = clock
        self._gone = False  # it answered 410: only a person, or a restart, tries it again
        self.largest_document: int | None = 0 if endpoint.document is _As.LINK else None

    def recipient(self, transaction: Transaction, *, to: str | None = None) -> Recipient:  # noqa: ARG002  # as `Channel`
        """Return the endpoint, which is the same for every transaction; raises `PermanentFailure` for another."""
        if to is not None:
            raise PermanentFailure("http posts to DELIVERY_HTTP_URL, and to no other address")
        host = self._endpoint.host
        return Recipient(address=host, key=address_key(self._account_id, host), masked=host)

    def compose(self, message: Message, document: bytes | None, recipient: Recipient, intent: Intent) -> Composed:
        """Return the JSON, which is a function of the invoice and the intent alone."""
        told = {
            **_about(self._account_id, message, intent),
            "seller": _seller(self._endpoint.seller),
            "document": _pdf(message, document),
        }
        content = json.dumps(told, ensure_ascii=True).encode("ascii")  # a lone surrogate has no UTF-8
        digest = hashlib.sha256(content).hexdigest()
        return Composed(recipient=recipient, message_id=intent.key, content=content, sha256=digest)

    async def send(self, composed: Composed) -> Receipt:
        """Post it; an answer from 200 to 299 is acceptance, and 409 says that it was accepted before."""
        answer = await self._ask("POST", composed.content, key=composed.message_id)
        if answer.status == _DONE:
            return Receipt(answer="409: the endpoint has it already")
        if answer.status in _SUCCESS:
            self._gone = False
            return Receipt(answer=f"the endpoint answered {answer.status}")
        self._gone = answer.status == _GONE
        raise _failure(answer)

    async def check(self) -> str:
        """Connect and ask what it takes (`OPTIONS`, signed, without a body); return what was found, or raise as `send`.

        Whatever it answers to that, it is there, unless it does not know us, or has no time now.
        """
        if self._gone:
            raise _failure(_Answer(status=_GONE))
        answer = await self._ask("OPTIONS", b"")
        if answer.status in {*_ACCOUNT, *_FOR_NOW, _GONE}:
            raise _failure(answer)
        return f"{self._endpoint.host}:{self._endpoint.port}, answers {answer.status} to OPTIONS"

    async def _ask(self, method: str, content: bytes, *, key: str | None = None) -> "_Answer":
        """Send one request to an address that was looked at, and return the answer's head; its body is not read."""
        headers = {"content-type": "application/json", "host": self._endpoint.url.netloc.decode("ascii")}
        headers[SIGNATURE] = signature(self._endpoint.secrets, content, self._clock.now())
        if key is not None:
            headers["idempotency-key"] = key
        failure: DeliveryFailure | None = None
        for address in await self._addresses():
            request = self._client.build_request(
                method,
                self._endpoint.url.copy_with(host=address),
                content=content,
                headers=headers,
                extensions={"sni_hostname": self._endpoint.host},
            )
            try:
                return await self._exchange(request)
            except AccountFailure as exc:  # not even connected: the next address may do
                failure = exc
        assert failure is not None
        raise failure

    async def _exchange(self, request: httpx.Request) -> "_Answer":
        try:
            async with asyncio.timeout(_WHOLE):
                answer = await self._client.send(request, stream=True)
                await answer.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise AccountFailure(f"no connection to the endpoint ({_said(exc)})") from exc
        except (httpx.PoolTimeout, httpx.UnsupportedProtocol) as exc:
            raise TransientFailure(f"the endpoint was not asked ({type(exc).__name__})") from exc
        except (httpx.HTTPError, OSError) as exc:  # a time-out is one of the last
            raise UnconfirmedFailure(f"the endpoint's answer was lost ({type(exc).__name__})") from exc
        after = wait(answer.headers.get("retry-after"), self._clock.now())
        return _Answer(status=answer.status_code, retry_after=after)

    async def _addresses(self) -> tuple[str, ...]:
        host, port = self._endpoint.host, self._endpoint.port
        try:
            async with asyncio.timeout(_CONNECT):
                return await addresses_of(host, port, allow_private=self._endpoint.allow_private)
        except NotPublic as exc:
            why = "leads to a private address; DELIVERY_HTTP_ALLOW_PRIVATE=true allows that"
            raise AccountFailure(f"DELIVERY_HTTP_URL {why}") from exc
        except OSError as exc:
            raise AccountFailure(f"the endpoint's host has no address ({_said(exc)})") from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    retry_after: float | None = None  # seconds


def _failure(answer: _Answer) -> DeliveryFailure:
    """Return what a refusal means (channels.md 2.2); nothing of its body is in it."""
    status, said = answer.status, f"the endpoint answered {answer.status}"
    if status == _GONE:
        return AccountFailure(f"{said} (gone): nothing more is posted until `resume http`, or a restart")
    if status in _ACCOUNT:
        return AccountFailure(f"{said}: it does not know us; see DELIVERY_HTTP_SECRETS")
    if status in _REDIRECTS:
        return AccountFailure(f"{said}: redirects are not followed; put the last address into DELIVERY_HTTP_URL")
    if status in _FOR_NOW:
        return TransientFailure(said, retry_after=answer.retry_after)
    if status == _TOO_LARGE:
        return MessageTooLarge(said)
    if status in _REFUSALS and status not in _IN_DOUBT:
        return PermanentFailure(said)
    return UnconfirmedFailure(said)


def signature(secrets: tuple[bytes, ...], content: bytes, at: datetime) -> str:
    """Return the header's value: of this moment, so it is no part of what a repeat must be the same in."""
    seconds = str(int(at.timestamp()))
    signed = (hmac.new(secret, f"{seconds}.".encode() + content, hashlib.sha256).hexdigest() for secret in secrets)
    return ",".join((f"t={seconds}", *(f"v1={one}" for one in signed)))


def _said(exc: Exception) -> str:
    return scrub(str(exc))[:100] or type(exc).__name__


# --- what is posted --------------------------------------------------------------------------------------------------


def _about(account_id: str, message: Message, intent: Intent) -> dict[str, object]:
    transaction = message.about
    assert transaction is not None  # a channel without templates is always told what it is about
    return {
        "version": VERSION,
        "id": intent.key,
        "kind": _KINDS[intent.purpose],
        "dated": _iso(intent.dated),
        "account_id": account_id,
        "test": account_id.startswith("T"),
        "locale": message.locale,
        **_invoice(transaction),
        "buyer": _party(transaction.billing or transaction.customer),
    }


def _invoice(transaction: Transaction) -> dict[str, object]:
    return {
        "transaction_id": transaction.id,
        "product": transaction.product_type,
        "invoice_number": transaction.invoice_number,
        "amount": transaction.amount,
        "vat_amount": transaction.vat_amount,
        "currency": transaction.currency,
        "invoice_date": _iso(transaction.invoice_date),
        "due_date": _iso(transaction.due_date),
        "merchant_reference": transaction.merchant_reference,
        "payment_reference": transaction.payment_reference,
    }


def _seller(brand: Brand | None) -> dict[str, object] | None:
    if brand is None:
        return None
    return {
        "name": brand.name,
        "organization_number": brand.organization_number,
        "email": brand.support_email,
        "phone_number": brand.support_phone,
        "website": brand.website,
    }


def _party(party: Party | None) -> dict[str, object] | None:
    if party is None:
        return None
    return {
        "first_name": party.first_name,
        "last_name": party.last_name,
        "business_name": party.business_name,
        "organization_number": party.organization_number,
        "email": party.email,
        "phone_number": party.phone_number,
        "country": party.country,
        "customer_reference": party.customer_reference,
    }


def _pdf(message: Message, document: bytes | None) -> dict[str, object] | None:
    if document is not None:
        return {
            "name": message.document_name,
            "content_type": "application/pdf",
            "sha256": hashlib.sha256(document).hexdigest(),
            "base64": base64.b64encode(document).decode("ascii"),
        }
    return {"name": message.document_name, "content_type": "application/pdf", "link": message.link}


def _iso(at: date | datetime | None) -> str | None:
    if isinstance(at, datetime):
        return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return at.isoformat() if at else None


# --- opening ---------------------------------------------------------------------------------------------------------


def open_http(context: ChannelContext) -> AbstractAsyncContextManager[HttpChannel]:
    """Open the channel; raises `UnusableSettings`. REDIRECT_TO does nothing here: no customer is reached."""
    given = {name.removeprefix(_PREFIX): text for name, text in context.environ}
    return _opened(endpoint_of(given, seller=context.brand), context)


@asynccontextmanager
async def _opened(endpoint: Endpoint, context: ChannelContext) -> AsyncIterator[HttpChannel]:
    timeout = httpx.Timeout(_WHOLE, connect=_CONNECT)
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=timeout) as client:
        yield HttpChannel(account_id=context.account_id, endpoint=endpoint, client=client, clock=context.clock)


def endpoint_of(given: Mapping[str, str], *, seller: Brand | None = None) -> Endpoint:
    """Return the endpoint that the HTTP_* settings describe; raises `UnusableSettings` with all that is wrong."""
    mistakes: list[str] = []

    def tried(name: str, read: Callable[[str], T], default: str = "") -> T | None:
        try:
            return read(given.get(name, "").strip() or default)
        except ValueError as exc:
            mistakes.append(f"{_PREFIX}{name}: {exc}")
            return None

    allow_private = tried("HTTP_ALLOW_PRIVATE", _truth, "false")
    url = tried("HTTP_URL", partial(_url, allow_http=allow_private is not False))
    secrets = tried("HTTP_SECRETS", _secrets)
    document = tried("HTTP_DOCUMENT", _as, _As.BASE64)
    if allow_private is None or url is None or secrets is None or document is None:
        raise UnusableSettings(tuple(mistakes))
    return Endpoint(url=url, secrets=secrets, document=document, allow_private=allow_private, seller=seller)


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise ValueError("must be true or false")
    return text.lower() == "true"


def _secrets(text: str) -> tuple[bytes, ...]:
    found = tuple(word.strip().encode() for word in text.split(",") if word.strip())
    if not found:
        raise ValueError("is required for http")
    return found


def _as(text: str) -> _As:
    try:
        return _As(text)
    except ValueError:
        raise ValueError("must be base64 or link") from None


def _url(text: str, *, allow_http: bool) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise ValueError("is no address") from None
    if not text or not url.host or url.scheme not in {"https", "http"}:
        raise ValueError("is required for http: an https address")
    if url.scheme == "http" and not allow_http:
        raise ValueError("must be https, unless DELIVERY_HTTP_ALLOW_PRIVATE=true")
    if url.userinfo or url.fragment:
        raise ValueError("must have no user, password or fragment: the signature says who posts")
    return url
