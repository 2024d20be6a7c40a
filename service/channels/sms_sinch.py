"""SMS by Sinch (channels.md 2.1): a batch of one, and reports signed with a nonce and a time."""

import json
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Final

from service.channels.sms import SmsChannel, open_sms
from service.channels.sms_provider import JSON, Provider, Sms, account, member, number, parsed, refused, word
from service.channels.sms_reports import digest, fresh, moment, prove, told
from service.channels.sms_settings import Given
from service.delivery import ChannelContext, Fate, Forged, Report, ReportRequest

NAME: Final = "sms-sinch"
MEANINGS: Final = {
    "blocked_account": account("the account is blocked"),
    "illegal_number_type": number("no kind of number that it sends to"),
    "missing_callback_url": account("the service plan takes no address for reports"),
    "unauthorized": account("the service plan or its token"),
    "syntax_invalid_json": refused("it cannot read the request"),
    "syntax_invalid_parameter_format": refused("the number, the sender or the text has a form that it does not take"),
    "syntax_constraint_violation": refused("the number, the sender or the text is outside its bounds"),
}
FATES: Final[dict[str, Fate | None]] = {
    "queued": None,
    "dispatched": Fate.DEFERRED,
    "delivered": Fate.DELIVERED,
    "aborted": Fate.FAILED,
    "cancelled": Fate.FAILED,
    "rejected": Fate.FAILED,
    "deleted": Fate.FAILED,
    "failed": Fate.FAILED,
    "expired": Fate.FAILED,
    "unknown": Fate.UNKNOWN,
}


def open_sms_sinch(context: ChannelContext) -> AbstractAsyncContextManager[SmsChannel]:
    """Open the channel as its settings say; raises `UnusableSettings`."""
    return open_sms(provider_of(context), context)


def provider_of(context: ChannelContext) -> Provider:
    given = Given(context, NAME)
    region = given.optional("SINCH_REGION") or "eu"
    plan = given.text("SINCH_SERVICE_PLAN_ID", form="[A-Za-z0-9_-]{1,100}", kind="letters and digits")
    bearer = given.text("SINCH_API_TOKEN")
    secret = given.text("SINCH_WEBHOOK_SECRET")
    sender = given.sender()
    base = given.base("SINCH_URL", f"https://{region}.sms.api.sinch.com")
    given.done()
    reports_at = given.reports_at()

    def body(sms: Sms) -> bytes:
        document = {
            "from": sender,
            "to": [sms.to],
            "body": sms.text,
            "delivery_report": "per_recipient",
            "callback_url": reports_at,
            "client_reference": sms.key,
        }
        return json.dumps(document).encode()

    def reports(request: ReportRequest, now: datetime) -> tuple[Report, ...]:
        nonce, stamp = (request.header(f"x-sinch-webhook-signature-{name}") for name in ("nonce", "timestamp"))
        if nonce is None or stamp is None:
            raise Forged("signature_missing")
        signed = b".".join((request.body, nonce.encode(), stamp.encode()))
        prove(request.header("x-sinch-webhook-signature"), digest(secret, signed))
        at = moment(stamp)
        if at is None:
            raise Forged("signature_wrong")
        fresh(at, now)
        document = parsed(request.body)
        return told(
            NAME,
            key=member(document, "client_reference"),
            remote_id=member(document, "batch_id"),
            status=member(document, "status"),
            fates=FATES,
            code=member(document, "code"),
            at=moment(member(document, "at")),
        )

    return Provider(
        name=NAME,
        title="Sinch",
        sender=sender,
        url=f"{base}/xms/v1/{plan}/batches",
        content_type=JSON,
        authorization=f"Bearer {bearer}",
        body=body,
        remote_id=lambda answer: word(answer.member("id")),
        code=lambda answer: word(answer.member("code")),
        meanings=MEANINGS,
        reports=reports,
        probe=f"{base}/xms/v1/{plan}/batches?page=0&page_size=1",
        longest=2000,
    )
