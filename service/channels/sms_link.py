"""SMS by LINK Mobility (channels.md 2.1). Its reports go to a gate that its support sets up, and nothing signs them."""

import json
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final

from service.channels.numbers import SenderKind, sender_kind
from service.channels.sms import SmsChannel, open_sms
from service.channels.sms_provider import JSON, Answer, Provider, Sms, account, later, member, number, parsed, word
from service.channels.sms_reports import moment, prove, query, told
from service.channels.sms_settings import Given, basic
from service.delivery import ChannelContext, Fate, Report, ReportRequest, Unusable

NAME: Final = "sms-link"
_QUEUED = 1005
_KINDS = {SenderKind.NAME: "ALPHANUMERIC", SenderKind.NUMBER: "MSISDN", SenderKind.SHORT: "SHORTNUMBER"}
MEANINGS: Final = {
    "106000": account("an error that it does not name"),
    "106100": account("it does not know the user or the password"),
    "106101": account("it does not know the user or the password"),
    "106200": account("the platform's id"),
    "106201": account("the partner's id"),
    "106300": account("the gate for reports"),
    "106301": account("the gate for reports"),
    "2": number("no way to that number"),
    "3": later("too many messages"),
    "2104": number("nobody has that number"),
    "2105": number("the number is barred"),
    "2106": number("no number that it knows"),
}
# Final, and a fresh try may do better: a fault on the way, too many messages, a full handset, too old, barred for now.
_ANOTHER_TIME = ("1", "3", "1004", "1002", "2107")
_NEVER = (
    *("0", "2", "6", "104", "105", "1006", "1009", "2104", "2105", "2106"),
    *(str(code) for code in (*range(2200, 2208), *range(3000, 3003), *range(4000, 4008))),
)
FATES: Final[dict[str, Fate | None]] = {
    **dict.fromkeys(("1000", "1007", "1008", "1011", "1012"), Fate.DEFERRED),
    **dict.fromkeys((*_ANOTHER_TIME, *_NEVER), Fate.FAILED),
    **dict.fromkeys(("4", "5", "1010"), Fate.UNKNOWN),
    "1001": Fate.DELIVERED,
    "1005": None,
}
_SAID: Final[dict[Fate | None, str]] = {  # of what has a number alone
    Fate.DELIVERED: "delivered",
    Fate.FAILED: "not delivered",
    Fate.DEFERRED: "on its way",
    Fate.UNKNOWN: "nobody knows whether it was delivered",
}


def open_sms_link(context: ChannelContext) -> AbstractAsyncContextManager[SmsChannel]:
    """Open the channel as its settings say; raises `UnusableSettings`."""
    return open_sms(provider_of(context), context)


def provider_of(context: ChannelContext) -> Provider:
    given = Given(context, NAME)
    base = given.base("LINKMOBILITY_URL")
    user, password = given.text("LINKMOBILITY_USER"), given.text("LINKMOBILITY_PASSWORD")
    platform, partner = given.text("LINKMOBILITY_PLATFORM_ID"), given.text("LINKMOBILITY_PARTNER_ID")
    gate = given.text("LINKMOBILITY_GATE")
    secret = given.text("RECEIPT_SECRET", form=".{16,}", kind="at least 16 characters")
    sender = given.sender()
    given.done()
    assert sender is not None

    def body(sms: Sms) -> bytes:
        document = {
            "source": sender,
            "sourceTON": _KINDS[sender_kind(sender)],
            "destination": sms.to,
            "userData": sms.text,
            "dcs": "TEXT",  # it chooses the alphabet and splits; with GSM or UCS2, splitting a long text would be ours
            "platformId": platform,
            "platformPartnerId": partner,
            "useDeliveryReport": True,
            "deliveryReportGates": [gate],
            "refId": sms.key,
            "ignoreResponse": False,  # the default answers nothing, not even whether it was taken
        }
        return json.dumps(document).encode()

    def reports(request: ReportRequest, now: datetime) -> tuple[Report, ...]:  # noqa: ARG001  # nothing is signed
        prove(query(request).get("secret"), secret.encode())
        document = parsed(request.body)
        several = document if isinstance(document, list) else [document]
        if not several:
            raise Unusable("no_message")
        return tuple(report for one in several for report in _told(one))

    return Provider(
        name=NAME,
        title="LINK Mobility",
        sender=sender,
        url=f"{base}/send",
        content_type=JSON,
        authorization=basic(user, password),
        body=body,
        remote_id=_remote_id,
        code=lambda answer: word(answer.member("resultCode")),
        meanings=MEANINGS,
        reports=reports,
        probe=None,
    )


def _remote_id(answer: Answer) -> str | None:
    return word(answer.member("messageId")) if answer.member("resultCode") == _QUEUED else None


def _told(document: object) -> tuple[Report, ...]:
    code = word(member(document, "resultCode"))
    words = MEANINGS[code].words if code in MEANINGS else _SAID.get(FATES.get(code or ""))
    return told(
        NAME,
        key=member(document, "refId"),
        remote_id=member(document, "id"),
        status=code,
        fates=FATES,
        at=moment(member(document, "timestamp")),
        words="a fresh try may do better" if code in _ANOTHER_TIME else words,
    )
