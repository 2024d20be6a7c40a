"""E-mail: who gets it, the mail itself, and its way to the relay."""

import asyncio
import hashlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from service.addresses import usable_address
from service.channels.mime import Envelope, build
from service.channels.oauth import Grant, open_tokens
from service.channels.smtp import Relay, tls_context
from service.channels.smtp_replies import clean
from service.channels.smtp_url import SmtpAddress, parse_smtp_url
from service.delivery import (
    Clock,
    Composed,
    DeliveryFailure,
    Guarantee,
    Intent,
    Mailbox,
    Message,
    Pace,
    PermanentFailure,
    Receipt,
    Recipient,
    Transaction,
)
from service.privacy import address_key, mask_address

_log = structlog.get_logger()
_MOST_COPIES = 100  # blind copies waiting; each holds a mail
_COPIES_GRACE = 5.0  # seconds left to them when the service stops
_MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """The addresses that the merchant has set. With `redirect_to`, nothing goes anywhere else."""

    mail_from: Mailbox
    reply_to: Mailbox | None
    bcc: Mailbox | None
    redirect_to: str | None


class EmailChannel:
    """`Channel` over one SMTP relay, opened by `open_email`."""

    name = "email"
    template = "mail"
    guarantee = Guarantee.AT_LEAST_ONCE
    reports = False  # bounces may come in, but nobody may wait for one

    def __init__(
        self,
        *,
        account_id: str,
        addresses: Addresses,
        smtp: SmtpAddress,
        relay: Relay,
        alarm: Callable[[str], None],
        pace: Pace | None = None,
        largest: int | None = None,
        reported_by: str = "",
    ) -> None:
        self.pace = pace
        self._reported_by = reported_by
        self.largest_document = largest
        self._account_id = account_id
        self._alarm = alarm
        self._addresses = addresses
        self._domain = addresses.mail_from.address.rpartition("@")[2]
        self._smtp = smtp
        self._relay = relay
        self._copies: set[asyncio.Task[None]] = set()

    def recipient(self, transaction: Transaction, *, to: str | None = None) -> Recipient:
        """Return the billing address, else the customer's, never the shipping address; raises `PermanentFailure`."""
        found = usable_address(to) if to is not None else self._customer_address(transaction)
        if found is None:
            whose = "the address given is no" if to is not None else "the transaction has no"
            raise PermanentFailure(f"{whose} usable e-mail address")
        address = self._addresses.redirect_to or found
        return Recipient(
            address=address,
            key=address_key(self._account_id, address),
            masked=mask_address(address),
            redirected_from=mask_address(found) if self._addresses.redirect_to else None,
        )

    def _customer_address(self, transaction: Transaction) -> str | None:
        parties = (transaction.billing, transaction.customer)
        addresses = (usable_address(party.email) for party in parties if party is not None)
        return next((address for address in addresses if address is not None), None)

    def compose(self, message: Message, document: bytes | None, recipient: Recipient, intent: Intent) -> Composed:
        """Return the mail; nothing in it depends on anything but the arguments and the settings."""
        message_id = f"<{intent.key}@{self._domain}>"
        envelope = Envelope(
            sender=self._addresses.mail_from,
            reply_to=self._addresses.reply_to,
            to=recipient.address,
            dated=intent.dated,
            key=intent.key,
            message_id=message_id,
            more=_for_reports(self._reported_by, intent.key),
        )
        content = build(envelope, message, document)
        digest = hashlib.sha256(content).hexdigest()
        return Composed(recipient=recipient, message_id=message_id, content=content, sha256=digest)

    async def send(self, composed: Composed) -> Receipt:
        """Hand the mail to the relay; its reply is the receipt."""
        address = composed.recipient.address
        key = composed.message_id.strip("<>").partition("@")[0]
        reply = await self._relay.deliver(self._addresses.mail_from.address, address, composed.content, key)
        self._begin_copy(composed)
        said = clean(reply.message, (address, address.rpartition("@")[0]))
        return Receipt(answer=f"{reply.code} {said}".strip(), remote_id=queue_id(reply.message))

    def _begin_copy(self, composed: Composed) -> None:
        """Start the blind copy beside the delivery: whatever becomes of it, the customer's mail has been accepted."""
        if self._addresses.bcc is None:
            return
        if len(self._copies) >= _MOST_COPIES:
            self._copy_failed("too many are waiting", message_id=composed.message_id)
            return
        target = self._addresses.redirect_to or self._addresses.bcc.address
        task = asyncio.create_task(self._copy(target, composed))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def _copy(self, target: str, composed: Composed) -> None:
        try:
            await self._relay.deliver(self._addresses.mail_from.address, target, composed.content)
        except DeliveryFailure as exc:
            self._copy_failed(exc.reason, message_id=composed.message_id)

    async def finish_copies(self) -> None:
        """Wait a little for the blind copies under way, then give them up."""
        if not self._copies:
            return
        _, late = await asyncio.wait(self._copies, timeout=_COPIES_GRACE)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if late:
            self._copy_failed(f"{len(late)} were not sent before the stop")

    def _copy_failed(self, reason: str, **about: str) -> None:
        self._alarm("alarm.blind_copy_failed")
        _log.warning("alarm.blind_copy_failed", reason=reason, **about)

    async def check(self) -> str:
        """Connect, sign in and leave without sending; return what was found, or raise as `send`."""
        limit = await self._relay.look()
        found = [f"{self._smtp.host}:{self._smtp.port}", str(self._smtp.security)]
        if self._smtp.user is not None:
            how = "" if self._smtp.password is not None else " by XOAUTH2"
            found.append(f"signed in as {_masked_user(self._smtp.user)}{how}")
        if limit is not None:
            found.append(f"SIZE {limit / _MEGABYTE:.0f} MB")
        return ", ".join(found)


def queue_id(reply: str) -> str | None:
    """Return the relay's own id of a mail, where its reply ends with one: `Ok: queued as ABC`, `Ok 0102019-…-000000`.

    By it ESPs that replace the Message-ID (SES, Postmark) name the mail in their reports.
    """
    found = re.search(r"(?i)\b(?:queued as|ok:?|id=)\s*<?([A-Za-z0-9][A-Za-z0-9._-]{7,99})>?\s*$", reply)
    return found[1] if found and any(map(str.isdecimal, found[1])) else None


def _for_reports(esp: str, key: str) -> tuple[tuple[str, str], ...]:
    """Return the header lines without which an ESP's reports would not name the mail by anything that we know.

    Postmark has its own id for each, which its reply need not tell; it does tell the metadata, and takes it out.
    """
    return (("X-PM-KeepID", "true"), ("X-PM-Metadata-delivery", key)) if esp == "postmark" else ()


def _masked_user(user: str) -> str:
    return mask_address(user) if "@" in user else f"{user[:1]}***"


def own_hostname() -> str:
    """Return a name for EHLO that every relay can read, without asking the DNS."""
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", name) else "localhost"


def on_the_wire(mailbox: Mailbox) -> Mailbox:
    """Return the mailbox with an ASCII domain; raises `ValueError`."""
    if mailbox.address.isascii():
        return mailbox
    address = usable_address(mailbox.address)
    if address is None:
        raise ValueError("a sender's address must be ASCII before the @")
    return Mailbox(name=mailbox.name, address=address)


@asynccontextmanager
async def open_email(
    *,
    account_id: str,
    smtp_url: str,
    mail_from: Mailbox,
    reply_to: Mailbox | None,
    bcc: Mailbox | None,
    redirect_to: str | None,
    connections: int,
    clock: Clock,
    alarm: Callable[[str], None] = lambda _: None,
    hostname: str | None = None,
    pace: Pace | None = None,
    largest: int | None = None,
    grant: Grant | None = None,
    reported_by: str = "",
) -> AsyncIterator[EmailChannel]:
    """Open the channel with up to `connections` connections to the relay; none is made before the first mail.

    `alarm` is told the name of a log event that a person should know. `hostname` is the name we give in EHLO (default:
    the machine's). `largest` is the most bytes of a document that are attached, `grant` what a user without a
    password gets tokens with, `reported_by` the ESP that reports on the mails (one of `service.receipts.PROVIDERS`).
    Raises `ValueError` for settings that cannot work.
    """
    addresses = Addresses(
        mail_from=on_the_wire(mail_from),
        reply_to=on_the_wire(reply_to) if reply_to else None,
        bcc=on_the_wire(bcc) if bcc else None,
        redirect_to=redirect_to,
    )
    smtp = parse_smtp_url(smtp_url)
    context = tls_context(smtp.security)
    name = hostname or own_hostname()
    async with open_tokens(grant, clock) as tokens:
        relay = Relay(smtp, connections=connections, clock=clock, hostname=name, context=context, tokens=tokens)
        channel = EmailChannel(
            account_id=account_id,
            addresses=addresses,
            smtp=smtp,
            relay=relay,
            alarm=alarm,
            pace=pace,
            largest=largest,
            reported_by=reported_by,
        )
        try:
            yield channel
        finally:
            await channel.finish_copies()
            await relay.close()
