"""SMS by 46elks (channels.md 2.1): a form in, JSON out, errors in words; what proves a report stands in its URL."""

import re
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from service.channels.sms import SmsChannel, open_sms
from service.channels.sms_provider import FORM, Answer, Provider, Sms, account, number, word
from service.channels.sms_reports import form, moment, prove, query, token, told
from service.channels.sms_settings import Given, basic
from service.delivery import ChannelContext, Fate, Report, ReportRequest

NAME: Final = "sms-46elks"
# It has no codes: what an error is about is found in its words, and told in ours.
_WORDS: Final = (
    ("credit", re.compile(r"\b(credits?|balance|funds)\b", re.IGNORECASE)),
    ("from", re.compile(r"\b(invalid|bad|missing|unknown) .?(from|sender)\b", re.IGNORECASE)),
    ("to", re.compile(r"\b(invalid|bad|missing|unknown) .?(to|recipient|destination)\b", re.IGNORECASE)),
)
MEANINGS: Final = {
    "credit": account("the account has no credit left"),
    "from": account("the sender is none that it takes"),
    "to": number("no number that it knows"),
}
FATES: Final[dict[str, Fate | None]] = {
    "created": None,
    "sent": Fate.DEFERRED,
    "delivered": Fate.DELIVERED,
    "failed": Fate.FAILED,
}


def open_sms_46elks(context: ChannelContext) -> AbstractAsyncContextManager[SmsChannel]:
    """Open the channel as its settings say; raises `UnusableSettings`."""
    return open_sms(provider_of(context), context)


def provider_of(context: ChannelContext) -> Provider:
    given = Given(context, NAME)
    user, password = given.text("46ELKS_USER"), given.text("46ELKS_PASSWORD")
    secret = given.text("RECEIPT_SECRET", form=".{16,}", kind="at least 16 characters")
    sender = given.sender()
    base = given.base("46ELKS_URL", "https://api.46elks.com")
    given.done()
    reports_at = given.reports_at()

    def body(sms: Sms) -> bytes:
        proof = {"intent": sms.key, "token": token(secret, NAME, sms.key)}
        callback = f"{reports_at}?{urlencode(proof)}"
        return urlencode({"from": sender, "to": sms.to, "message": sms.text, "whendelivered": callback}).encode()

    def reports(request: ReportRequest, now: datetime) -> tuple[Report, ...]:  # noqa: ARG001  # nothing is signed
        asked = query(request)
        key = asked.get("intent", "")
        prove(asked.get("token"), token(secret, NAME, key).encode())
        found = dict(form(request))
        return told(
            NAME,
            key=key,
            remote_id=found.get("id"),
            status=found.get("status"),
            fates=FATES,
            at=moment(found.get("delivered")),
        )

    return Provider(
        name=NAME,
        title="46elks",
        sender=sender,
        url=f"{base}/a1/sms",
        content_type=FORM,
        authorization=basic(user, password),
        body=body,
        remote_id=lambda answer: word(answer.member("id")),
        code=_about,
        meanings=MEANINGS,
        reports=reports,
        probe=f"{base}/a1/me",
    )


def _about(answer: Answer) -> str | None:
    """Return what an error is about; an acceptance repeats the text that was sent, whose words tell nothing."""
    if answer.status < 400:  # noqa: PLR2004  # no error
        return None
    text = answer.body.decode("utf-8", "replace")
    return next((about for about, words in _WORDS if words.search(text)), None)
