"""SMS by Twilio (channels.md 2.1): a form in, JSON out, reports signed over the very URL that was given for them."""

import base64
import hashlib
import hmac
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

from service.channels.sms import SmsChannel, open_sms
from service.channels.sms_provider import FORM, Provider, Sms, account, blocked, later, number, refused, word
from service.channels.sms_reports import form, prove, query, told
from service.channels.sms_settings import Given, basic
from service.delivery import ChannelContext, Fate, Report, ReportRequest

NAME: Final = "sms-twilio"
MEANINGS: Final = {
    "10001": account("the account is not active"),
    "20003": account("it does not know the account or its token"),
    "20404": account("there is no such account"),
    "20429": later("too many requests"),
    "21211": number("no number that it knows"),
    "21212": account("the sender is none that it knows"),
    "21408": blocked("the account may not send to that country"),
    "21601": account("the sender is not the account's"),
    "21606": blocked("the sender is not the account's, or none for that country"),
    "21608": account("a trial account sends to verified numbers only"),
    "21610": number("the recipient has opted out"),
    "21611": later("the sender's queue is full"),
    "21612": number("no way from this sender to that number"),
    "21614": number("not a mobile number"),
    "21617": refused("the text is too long"),
    "21635": number("a landline"),
    "21659": blocked("the sender is not the account's, or none for that country"),
    "21660": account("the sender is another account's"),
    "21661": account("the sender cannot send texts"),
    "21703": account("the messaging service has no sender"),
    "21705": account("there is no such messaging service"),
    "30001": later("its queue is full"),
    "30002": account("the account is suspended"),
    "30003": number("the handset cannot be reached"),
    "30004": number("the recipient takes no messages"),
    "30005": number("nobody has that number"),
    "30006": number("a landline, or a carrier that cannot be reached"),
    "30007": blocked("filtered as unwanted"),
}
FATES: Final[dict[str, Fate | None]] = {
    "accepted": None,
    "scheduled": None,
    "queued": None,
    "sending": None,
    "sent": Fate.DEFERRED,
    "delivered": Fate.DELIVERED,
    "read": Fate.DELIVERED,
    "undelivered": Fate.FAILED,
    "failed": Fate.FAILED,
    "canceled": Fate.FAILED,
}


def open_sms_twilio(context: ChannelContext) -> AbstractAsyncContextManager[SmsChannel]:
    """Open the channel as its settings say; raises `UnusableSettings`."""
    return open_sms(provider_of(context), context)


def provider_of(context: ChannelContext) -> Provider:
    given = Given(context, NAME)
    sid = given.text("TWILIO_ACCOUNT_SID", form="AC[0-9a-f]{32}", kind="AC and 32 hex digits")
    secret = given.text("TWILIO_AUTH_TOKEN")
    service = given.optional("TWILIO_MESSAGING_SERVICE_SID")
    sender = given.sender(instead="TWILIO_MESSAGING_SERVICE_SID")
    base = given.base("TWILIO_URL", "https://api.twilio.com")
    given.done()
    reports_at = given.reports_at()
    origin = {"MessagingServiceSid": service} if service else {"From": sender or ""}

    def body(sms: Sms) -> bytes:
        # Nothing of a request comes back with a report, so that its URL has to tell which message it is about.
        callback = f"{reports_at}?{urlencode({'intent': sms.key})}"
        return urlencode({"To": sms.to, **origin, "Body": sms.text, "StatusCallback": callback}).encode()

    def reports(request: ReportRequest, now: datetime) -> tuple[Report, ...]:  # noqa: ARG001  # nothing tells when it was signed
        pairs = form(request)
        prove(request.header("x-twilio-signature"), *(signature(secret, url, pairs) for url in _as_signed(request.url)))
        found = dict(pairs)
        code = found.get("ErrorCode")
        return told(
            NAME,
            key=query(request).get("intent"),
            remote_id=found.get("MessageSid"),
            status=found.get("MessageStatus"),
            fates=FATES,
            code=code,
            words=MEANINGS[code].words if code in MEANINGS else None,
        )

    return Provider(
        name=NAME,
        title="Twilio",
        sender=None if service else sender,
        url=f"{base}/2010-04-01/Accounts/{sid}/Messages.json",
        content_type=FORM,
        authorization=basic(sid, secret),
        body=body,
        remote_id=lambda answer: word(answer.member("sid")),
        code=lambda answer: word(answer.member("code")),
        meanings=MEANINGS,
        reports=reports,
        probe=f"{base}/2010-04-01/Accounts/{sid}.json",
        longest=1600,
    )


def _as_signed(url: str) -> tuple[str, ...]:
    """Return a URL with and without its port: which of them is signed depends on Twilio's own client."""
    parts = urlsplit(url)
    host = parts.netloc.removesuffix(f":{parts.port}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return url, *(parts._replace(netloc=netloc).geturl() for netloc in (host, f"{host}:{port}"))


def signature(secret: str, url: str, pairs: list[tuple[str, str]]) -> bytes:
    """Return what signs a report: of the URL, and of the form's names and values one after another, by name."""
    signed = url + "".join(name + value for name, value in sorted(set(pairs)))
    return base64.b64encode(hmac.new(secret.encode(), signed.encode(), hashlib.sha1).digest())
