"""What a customer would get, without sending it: by the very code that sends, of a transaction or of samples."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from service.delivery import (
    Intent,
    Interval,
    InvoicePage,
    Mailbox,
    Message,
    PageRenderer,
    Party,
    Purpose,
    Recipient,
    Renderer,
    Transaction,
    Upcoming,
)

A_LINK = "https://example.com/i/0123456789abcdefABCDEF"
"""The link of messages that are only looked at: it leads nowhere."""
_TO = Recipient(address="kari@example.com", key="", masked="k***@example.com")
_MAILS = (
    ("invoice", Purpose.FIRST, None),
    ("link", Purpose.FIRST, A_LINK),
    ("copy", Purpose.RESEND, None),
    ("cancelled", Purpose.CANCELLED, None),
)
_TEXTS = (
    ("invoice", Purpose.FIRST, A_LINK),
    ("copy", Purpose.RESEND, A_LINK),
    ("cancelled", Purpose.CANCELLED, None),
)
_CURRENCIES = {"sv": "SEK", "fi": "EUR", "da": "DKK"}
_UPCOMING = Upcoming(interval=Interval.MONTHLY, period_start=date(2026, 6, 1), issue=date(2026, 7, 1))
_DOCUMENT = b"%PDF-1.4\n%%EOF\n"  # what is attached is of no interest here


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One file of a preview; `remark` is a line for people."""

    name: str
    content: bytes
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Previewer:
    """Renders previews in one language: `mail` makes a mail's bytes, `text` says what an SMS is sent as."""

    renderer: Renderer
    pages: PageRenderer
    mail: Callable[[Message, bytes | None, Recipient, Intent], bytes]
    text: Callable[[str], tuple[str, str]]

    def mails(self, transaction: Transaction) -> tuple[Shown, ...]:
        """Return each kind of mail as HTML, as plain text and as it goes over the wire."""
        found: list[Shown] = []
        for kind, purpose, link in _MAILS:
            message = self._message("mail", transaction, purpose, link)
            document = _DOCUMENT if link is None and purpose is not Purpose.CANCELLED else None
            found += self._mail(kind, message, purpose, document)
        notice = self.renderer.notice("mail", transaction, upcoming=_UPCOMING, recipient=_TO)
        return (*found, *self._mail("notice", notice, Purpose.FIRST, None))

    def _mail(self, kind: str, message: Message, purpose: Purpose, document: bytes | None) -> tuple[Shown, ...]:
        at = f"{message.locale}-mail-{kind}"
        whole = self.mail(message, document, _TO, _intent(at, purpose))
        size = f"{len(message.html or '') / 1000:.0f} kB of HTML"
        return (
            Shown(name=f"{at}.html", content=(message.html or "").encode(), remark=f"{message.subject} ({size})"),
            Shown(name=f"{at}.txt", content=message.text.encode(), remark="the same as plain text"),
            Shown(name=f"{at}.eml", content=whole, remark="the mail as it is sent"),
        )

    def texts(self, transaction: Transaction) -> tuple[Shown, ...]:
        """Return each kind of SMS, and what it costs."""
        messages = [(kind, self._message("sms", transaction, purpose, link)) for kind, purpose, link in _TEXTS]
        notice = self.renderer.notice("sms", transaction, upcoming=_UPCOMING, recipient=_TO)
        return tuple(self._text(kind, message) for kind, message in (*messages, ("notice", notice)))

    def _text(self, kind: str, message: Message) -> Shown:
        said, cost = self.text(message.text)
        return Shown(name=f"{message.locale}-sms-{kind}.txt", content=said.encode(), remark=cost)

    def page(self, transaction: Transaction) -> tuple[Shown, ...]:
        """Return the invoice page."""
        assert transaction.invoice_number is not None
        assert transaction.amount is not None
        assert transaction.currency is not None
        page = InvoicePage(
            delivery_id=transaction.id,
            locale=self.renderer.locale(transaction),
            invoice_number=transaction.invoice_number,
            amount=transaction.amount,
            currency=transaction.currency,
            invoice_date=transaction.invoice_date,
            due_date=transaction.due_date,
            payment_reference=transaction.payment_reference,
            merchant_reference=transaction.merchant_reference,
        )
        html = self.pages.page(page, document_url="invoice.pdf")
        return (Shown(name=f"{page.locale}-page.html", content=html.encode(), remark="the invoice page"),)

    def _message(self, template: str, transaction: Transaction, purpose: Purpose, link: str | None) -> Message:
        return self.renderer.render(template, transaction, purpose=purpose, recipient=_TO, link=link)


def in_language(transaction: Transaction) -> Transaction:
    """Return a transaction that says nothing of its reader's language, so that the merchant's own counts."""
    billing = transaction.billing
    return replace(transaction, billing=replace(billing, country=None) if billing else Party(), customer=None)


def sold_in(tag: str, sample: Transaction) -> Transaction:
    """Return a sample as readers of a language mostly have it: in the currency of their country."""
    return in_language(replace(sample, currency=_CURRENCIES.get(tag, sample.currency)))


def complete(transaction: Transaction, sample: Transaction) -> Transaction:
    """Return a transaction with what it lacks taken from a sample: before it is billed, it has no number."""
    return replace(
        transaction,
        invoice_number=transaction.invoice_number or sample.invoice_number,
        amount=transaction.amount or sample.amount,
        currency=transaction.currency or sample.currency,
    )


def sender_of(mail_from: Mailbox | None, brand_name: str) -> Mailbox:
    """Return who a mail is from that is only looked at."""
    return mail_from or Mailbox(name=brand_name, address="invoices@example.com")


def _intent(name: str, purpose: Purpose) -> Intent:
    key = hashlib.sha256(name.encode()).hexdigest()[:32]
    return Intent(key=key, dated=datetime(2026, 7, 1, 10, tzinfo=UTC), purpose=purpose)


KINDS: tuple[str, ...] = ("mail", "sms", "page")


def previews(previewer: Previewer, transaction: Transaction, kinds: Sequence[str]) -> tuple[Shown, ...]:
    """Return all files of these kinds."""
    made = {"mail": previewer.mails, "sms": previewer.texts, "page": previewer.page}
    return tuple(shown for kind in kinds for shown in made[kind](transaction))
