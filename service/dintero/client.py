"""The payment provider as the core knows it: `Payments`, over HTTP."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

from service.delivery import (
    CaptureAnswer,
    CaptureRequest,
    ChannelDefault,
    Clock,
    Explained,
    PermanentFailure,
    Resolution,
    Subscription,
    Terms,
    Transaction,
    TransientFailure,
)
from service.dintero.access import FORBIDDEN, Access, is_success, parsed
from service.dintero.configuration import ReadConfiguration
from service.dintero.creating import Creating
from service.dintero.effects import Effects
from service.dintero.files import Files
from service.dintero.listing import Listing
from service.dintero.ownership import Ownership
from service.dintero.reading import identifier, members
from service.dintero.subscriptions import Hooks
from service.dintero.transaction import parse_transaction
from service.dintero.wire import Answer, Timeouts, Wire, open_wire, place, segment

_NOT_FOUND = 404
_REFUSED_BY_US = (400, 401)  # what web/ answers to a call without a signature, or without an id
_UNKNOWN_TO_US = (FORBIDDEN, _NOT_FOUND)
_READING = "reading the transaction"
_STANDARD_TERMS = Terms()


class Dintero:
    """Implements `service.delivery.Payments` and `service.delivery.Subscriptions`."""

    def __init__(
        self,
        *,
        wire: Wire,
        access: Access,
        ownership: Ownership,
        files: Files,
        clock: Clock,
        account_id: str,
        checkout_url: str,
    ) -> None:
        """Take the parts that `open_dintero` opened."""
        self._wire = wire
        self._access = access
        self._ownership = ownership
        self._files = files
        self._effects = Effects(access, clock, checkout_url=checkout_url)
        self._listing = Listing(access, clock, checkout_url=checkout_url)
        self._hooks = Hooks(access, account_url=access.account_url)
        self.creating = Creating(access, clock, checkout_url=checkout_url)
        self._clock = clock
        self._account_id = account_id
        self._checkout_url = checkout_url

    async def read(self, transaction_id: str) -> Transaction:
        """Return the transaction with its session; see `Payments`."""
        at = place(f"{self._checkout_url}/transactions/{segment(transaction_id)}?includes=session")
        read_at = self._clock.now()
        answer = await self._access.exchange("GET", at, doing=_READING)
        if not is_success(answer.status):
            raise self._unread(transaction_id, answer)
        document = members(parsed(answer, _READING))
        session_id = identifier(document.get("session_id"))
        if session_id is not None and not members(document.get("session")):
            document = {**document, "session": await self._session(session_id)}
        transaction = parse_transaction(document, read_at=read_at)
        if transaction.id != transaction_id:
            raise TransientFailure("Dintero answered with another transaction")
        return transaction

    async def resolve(self, transaction: Transaction) -> Resolution:
        """Return who delivers; see `Payments`."""
        return await self._ownership.resolve(transaction)

    async def explain(self, transaction: Transaction) -> Explained:
        """Return every level that `resolve` asks, or would ask; see `Ownership.explain`."""
        return await self._ownership.explain(transaction)

    async def invoice(self, url: str) -> bytes:
        """Return the document; see `Payments` and `Files.fetch`."""
        return await self._files.fetch(url)

    async def capture(self, request: CaptureRequest) -> CaptureAnswer:
        """Capture; see `Payments` and `Effects`."""
        return await self._effects.capture(request)

    async def void(self, transaction_id: str) -> Transaction:
        """Void; see `Payments` and `Effects`."""
        return await self._effects.void(transaction_id)

    async def list_created(
        self, since: datetime, until: datetime | None = None, *, after: str | None = None
    ) -> tuple[Transaction, ...]:
        """Return a page of transactions; see `Payments` and `Listing`."""
        return await self._listing.created(since, until, after)

    async def subscriptions(self) -> tuple[Subscription, ...]:
        """Return the account's webhooks; see `Subscriptions`."""
        return await self._hooks.subscriptions()

    async def subscribe(self, url: str, secret: str, events: Sequence[str]) -> Subscription:
        """Create a webhook; see `Subscriptions`."""
        return await self._hooks.subscribe(url, secret, events)

    async def check(self) -> str:
        """Read for real as our client, and return a line on it; raises as `read` does.

        A token alone would say little: one is kept for hours, and its client may have lost the right to read.
        """
        await self._listing.look()
        return f"the client credentials are accepted for {self._account_id}"

    async def reach(self, url: str, *, method: str = "GET", refused_by: Collection[int] = _REFUSED_BY_US) -> str:
        """Ask an address of our own without a signature, and return a line on it; raises unless it is we who refuse."""
        doing = f"asking {url}"
        try:
            answer = await self._wire.exchange(method, place(url), doing=doing, headers={})
        except ValueError as exc:
            raise PermanentFailure(f"{url} is not a usable address") from exc
        word = members(parsed(answer, doing)).get("error") if answer.status in refused_by else None
        if not isinstance(word, str):  # others say what is wrong in an object of their own
            raise TransientFailure(f"{url} answered {answer.status}, and not as this service does")
        return f"{url} leads here"

    async def _session(self, session_id: str) -> object:
        """Return the session; None when these credentials do not see it."""
        doing = "reading the session"
        at = place(f"{self._checkout_url}/sessions/{segment(session_id)}")
        answer = await self._access.exchange("GET", at, doing=doing)
        if is_success(answer.status):
            return parsed(answer, doing)
        if answer.status in _UNKNOWN_TO_US:
            return None
        raise self._access.refused(answer, doing)

    def _unread(self, transaction_id: str, answer: Answer) -> TransientFailure:
        if answer.status == _NOT_FOUND:
            return TransientFailure("not known at the provider (404)", retry_after=answer.retry_after)
        if answer.status == FORBIDDEN and not transaction_id.startswith(f"{self._account_id}."):
            # Another account's transaction says nothing of ours, and may not hold up all others.
            return TransientFailure(self._access.reason(answer, _READING), retry_after=answer.retry_after)
        return self._access.refused(answer, _READING)


@asynccontextmanager
async def open_dintero(
    *,
    account_id: str,
    client_id: str,
    client_secret: str,
    checkout_url: str,
    api_url: str,
    file_hosts: tuple[str, ...],
    max_pdf_bytes: int,
    invoice_channel: ChannelDefault,
    clock: Clock,
    version: str,
    timeouts: Timeouts | None = None,
    group_terms: Terms = _STANDARD_TERMS,
) -> AsyncIterator[Dintero]:
    """Open the provider. Raises `ValueError` when one of the two URLs is none."""
    checkout, timeouts = checkout_url.rstrip("/"), timeouts or Timeouts()
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(open_wire(clock=clock, version=version, timeouts=timeouts))
        access = Access(
            wire,
            clock,
            account_id=account_id,
            client_id=client_id,
            client_secret=client_secret,
            checkout_url=checkout,
            api_url=api_url,
        )
        stack.push_async_callback(access.aclose)
        configuration = ReadConfiguration(access, clock, checkout_url=checkout)
        stack.push_async_callback(configuration.aclose)
        ownership = Ownership(configuration, default=invoice_channel, group_terms=group_terms)
        yield Dintero(
            wire=wire,
            access=access,
            ownership=ownership,
            files=Files(access, hosts=file_hosts, max_bytes=max_pdf_bytes, timeout=timeouts.file),
            clock=clock,
            account_id=account_id,
            checkout_url=checkout,
        )
