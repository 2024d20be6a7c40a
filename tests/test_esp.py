"""ESPs' reports: each verified as its ESP signs, and read into one vocabulary."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from service.channels.email import queue_id
from service.delivery import Fate, Forged, Report, ReportRequest, Stale, TransientFailure, Unusable
from service.receipts import PROVIDERS, EmailReports, open_email_reports
from service.receipts.amazon import Amazon, open_fetcher
from service.receipts.esp import Generic, Mailgun, Postmark, SendGrid
from service.receipts.events import Provider
from service.settings import Settings
from tests.servers import Reply, Seen, serve

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
KEY = "0123456789abcdef" * 2
OURS = f"<{KEY}@butikken.example>"
SECRET = "a-secret-of-some-length"
URL = "https://invoices.example/receipts/email"
ADDRESS = "ola@nordmann.example"


def asked(content: object, *, query: str = "", **headers: str) -> ReportRequest:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    named = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    return ReportRequest(method="POST", url=f"{URL}?{query}" if query else URL, headers=named, body=body)


async def read(provider: Provider, request: ReportRequest, *, at: datetime = NOW) -> tuple[Report, ...]:
    return await EmailReports(provider, ignored=["copy@butikken.example"]).read_reports(request, now=at)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


# --- Postmark --------------------------------------------------------------------------------------------------------

POSTMARK = {
    "RecordType": "Bounce",
    "ID": 42,
    "Type": "HardBounce",
    "MessageID": "883953f4-6105-42a2-a16a-77a8eac79483",
    "Description": "The server was unable to deliver your message",
    "Details": f"smtp;550 5.1.1 <{ADDRESS}> unknown, not even ola",
    "Email": ADDRESS,
    "BouncedAt": "2026-11-22T09:59:00.1234567+01:00",
}


async def test_postmark_bounce() -> None:
    (report,) = await read(Postmark(SECRET), asked(POSTMARK, authorization=basic(SECRET)))
    assert report.detail is not None
    assert replace(report, detail=None) == Report(
        channel="email",
        event_id="postmark:Bounce:42",
        reference="883953f4-6105-42a2-a16a-77a8eac79483",
        fate=Fate.FAILED,
        at=datetime(2026, 11, 22, 8, 59, 0, 123456, tzinfo=UTC),
    )
    assert report.detail.startswith("bounced: HardBounce The server")
    assert "5.1.1" in report.detail
    assert "ola" not in report.detail


@pytest.mark.parametrize(
    ("changed", "fate"),
    [
        ({"RecordType": "Delivery", "DeliveredAt": "2026-11-22T09:00:00Z"}, Fate.DELIVERED),
        ({"Type": "Transient"}, Fate.DEFERRED),
        ({"Type": "SoftBounce"}, Fate.FAILED),
        ({"Type": "Blocked"}, Fate.FAILED),
        ({"Type": "SomethingNew"}, Fate.FAILED),
        ({"RecordType": "SpamComplaint", "Type": "SpamComplaint"}, Fate.UNKNOWN),
        ({"Type": "AutoResponder"}, None),
        ({"RecordType": "Open"}, None),
        ({"RecordType": "SubscriptionChange"}, None),
    ],
)
async def test_postmark_words(changed: dict[str, str], fate: Fate | None) -> None:
    reports = await read(Postmark(SECRET), asked(POSTMARK | changed, query=f"secret={SECRET}"))
    assert [report.fate for report in reports] == ([] if fate is None else [fate])


async def test_postmark_names_our_message_where_its_metadata_does() -> None:
    said = POSTMARK | {"Metadata": {"other": "x", "delivery": KEY}}
    (report,) = await read(Postmark(SECRET), asked(said, query=f"secret={SECRET}"))
    assert report.reference == KEY


@pytest.mark.parametrize("metadata", [{}, [], None, {"delivery": "42"}, {"delivery": {"x": KEY}}])
async def test_postmark_has_an_id_of_its_own_besides(metadata: Any) -> None:
    (report,) = await read(Postmark(SECRET), asked(POSTMARK | {"Metadata": metadata}, query=f"secret={SECRET}"))
    assert report.reference == POSTMARK["MessageID"]


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "proof",
    [{"query": f"a=b&secret={SECRET}"}, {"authorization": f"Bearer {SECRET}"}, {"authorization": basic(SECRET)}],
)
@pytest.mark.parametrize("make", [Postmark, Generic])
async def test_a_secret_is_known_in_three_ways(make: Callable[[str], Provider], proof: dict[str, str]) -> None:
    said = POSTMARK | {"event_type": "delivered", "message_id": KEY}
    assert len(await read(make(SECRET), asked(said, **proof))) == 1


@pytest.mark.parametrize(
    "proof",
    [
        {},
        {"query": "secret="},
        {"query": f"secret={SECRET}x"},
        {"query": "secret=%ff"},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Digest {SECRET}"},
        {"authorization": basic("wrong")},
        {"authorization": "Basic !!"},
        {"authorization": "Basic"},
    ],
)
@pytest.mark.parametrize("make", [Postmark, Generic])
async def test_without_the_secret_nothing_is_read(make: Callable[[str], Provider], proof: dict[str, str]) -> None:
    with pytest.raises(Forged):
        await read(make(SECRET), asked(b"not even JSON", **proof))


# --- generic ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "fate"),
    [
        *((word, Fate.FAILED) for word in ("bounced", "rejected", "failed")),
        ("delivered", Fate.DELIVERED),
        ("deferred", Fate.DEFERRED),
        ("complained", Fate.UNKNOWN),
        *((word, None) for word in ("queued", "sent", "opened", "clicked", "unsubscribed", "autoresponded", "new")),
    ],
)
async def test_anymails_words(word: str, fate: Fate | None) -> None:
    said = {"event_type": word, "message_id": OURS, "event_id": "7", "timestamp": "2026-11-22T09:00:00Z"}
    reports = await read(Generic(SECRET), asked(said, query=f"secret={SECRET}"))
    assert [(report.fate, report.event_id, report.at) for report in reports] == (
        [] if fate is None else [(fate, "generic:7", NOW - timedelta(hours=1))]
    )


@pytest.mark.parametrize("message_id", [OURS, OURS.strip("<>"), f" {OURS} "])
async def test_a_message_id_with_and_without_brackets(message_id: str) -> None:
    said = {"event_type": "bounced", "message_id": message_id}
    (report,) = await read(Generic(SECRET), asked(said, query=f"secret={SECRET}"))
    assert report.reference == OURS


@pytest.mark.parametrize("message_id", ["<newsletter-7@butikken.example>", f"{KEY}0@butikken.example", "x@y@z"])
async def test_other_mail_by_the_same_esp_is_left_out(message_id: str) -> None:
    said = {"event_type": "bounced", "message_id": message_id}
    assert await read(Generic(SECRET), asked(said, query=f"secret={SECRET}")) == ()


async def test_several_events_and_ids_for_those_without() -> None:
    one = {"event_type": "bounced", "message_id": OURS, "timestamp": 1_795_000_000}
    said = [one, one, one | {"event_type": "delivered"}, one | {"timestamp": 1_795_000_001}]
    first, again, *others = await read(Generic(SECRET), asked(said, query=f"secret={SECRET}"))
    assert first == again
    assert len({first.event_id, *(other.event_id for other in others)}) == 3


async def test_what_is_about_a_blind_copy_is_left_out() -> None:
    said = {"event_type": "bounced", "message_id": OURS, "recipient": "Copy@butikken.example"}
    assert await read(Generic(SECRET), asked(said, query=f"secret={SECRET}")) == ()


async def test_an_odd_event_does_not_keep_the_others_out() -> None:
    good = {"event_type": "bounced", "message_id": OURS}
    said = [{"event_type": "bounced"}, good, None, {"event_type": "bounced", "message_id": [OURS]}]
    assert len(await read(Generic(SECRET), asked(said, query=f"secret={SECRET}"))) == 1


async def test_none_of_many_events_is_dropped() -> None:
    said = [{"event_type": "bounced", "message_id": OURS, "event_id": str(number)} for number in range(6000)]
    assert len(await read(Generic(SECRET), asked(said, query=f"secret={SECRET}"))) == 6000


@pytest.mark.parametrize("odd", ["\ud800", "\0", "\ud800@x.example"])
async def test_what_no_database_takes_is_no_bug(odd: str) -> None:
    said = [{"event_type": "bounced", "message_id": OURS, "recipient": odd, "description": odd}, {"message_id": odd}]
    (report,) = await read(Generic(SECRET), asked(said, query=f"secret={SECRET}"))
    assert report.reference == OURS


async def test_a_short_name_before_the_at_does_not_hide_the_word_for_what_happened() -> None:
    said = {"event_type": "bounced", "message_id": OURS, "recipient": "b@x.example", "description": "550 b@x.example"}
    (report,) = await read(Generic(SECRET), asked(said, query=f"secret={SECRET}"))
    assert report.detail == "bounced: 550 ***"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", b"null", b'{"event_type": 1, "message_id": []}'])
async def test_what_cannot_be_read_is_unusable(content: bytes) -> None:
    with pytest.raises(Unusable):
        await read(Generic(SECRET), asked(content, query=f"secret={SECRET}"))


# --- SendGrid --------------------------------------------------------------------------------------------------------

SENDGRID_KEY = ec.generate_private_key(ec.SECP256R1())
SENDGRID_PUBLIC = base64.b64encode(
    SENDGRID_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()


def sendgrid(
    *events: Any, key: ec.EllipticCurvePrivateKey = SENDGRID_KEY, timestamp: str = "1795000000"
) -> ReportRequest:
    body = json.dumps(events).encode()
    signature = key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
    return asked(
        body,
        x_twilio_email_event_webhook_signature=base64.b64encode(signature).decode(),
        x_twilio_email_event_webhook_timestamp=timestamp,
    )


def sendgrid_event(event: str, **changed: Any) -> dict[str, Any]:
    usual = {"smtp-id": OURS, "sg_event_id": f"sg-{event}", "timestamp": 1_795_000_000, "email": ADDRESS}
    return {"event": event, **usual, **changed}


async def test_sendgrid_words() -> None:
    words = {
        "delivered": Fate.DELIVERED,
        "bounce": Fate.FAILED,
        "dropped": Fate.FAILED,
        "deferred": Fate.DEFERRED,
        "spamreport": Fate.UNKNOWN,
    }
    events = [sendgrid_event(word) for word in (*words, "processed", "open", "click", "group_unsubscribe")]
    reports = await read(SendGrid(SENDGRID_PUBLIC), sendgrid(*events, {"event": "bounce"}, "nonsense"))
    assert {report.event_id: report.fate for report in reports} == {
        f"sendgrid:sg-{word}": fate for word, fate in words.items()
    }
    assert {report.reference for report in reports} == {OURS}


async def test_sendgrid_names_its_own_id_where_it_does_not_name_ours() -> None:
    """Its events may come without `smtp-id`; the first part of its own id is in its reply to the mail."""
    said = sendgrid_event("bounce", **{"smtp-id": "", "sg_message_id": "6tmhBlhcQvqfCFwQRLtGSw.recvd-5f5-1-5.0"})
    (report,) = await read(SendGrid(SENDGRID_PUBLIC), sendgrid(said, sendgrid_event("bounce", **{"smtp-id": None})))
    assert report.reference == queue_id("Ok: queued as 6tmhBlhcQvqfCFwQRLtGSw")


async def test_sendgrid_must_sign_this_body_at_this_time() -> None:
    good = sendgrid(sendgrid_event("bounce", reason=f"550 5.1.1 no {ADDRESS}"))
    (report,) = await read(SendGrid(SENDGRID_PUBLIC), good)
    assert report.detail == "bounced: 550 5.1.1 no ***"
    headers = dict(good.headers)
    for wrong in (
        replace(good, body=good.body.replace(b"bounce", b"deliver")),
        replace(good, headers=()),
        replace(good, headers=tuple((headers | {"x-twilio-email-event-webhook-timestamp": "1795000001"}).items())),
        replace(good, headers=tuple((headers | {"x-twilio-email-event-webhook-signature": "AAAA"}).items())),
        replace(good, headers=tuple((headers | {"x-twilio-email-event-webhook-signature": "\xe6"}).items())),
        sendgrid(sendgrid_event("bounce"), key=ec.generate_private_key(ec.SECP256R1())),
    ):
        with pytest.raises(Forged):
            await read(SendGrid(SENDGRID_PUBLIC), wrong)


# --- Mailgun ---------------------------------------------------------------------------------------------------------


def mailgun(event: str = "failed", *, at: datetime = NOW, key: str = SECRET, token: str = "t1", **changed: Any) -> Any:
    timestamp = str(int(at.timestamp()))
    signature = hmac.new(key.encode(), f"{timestamp}{token}".encode(), hashlib.sha256).hexdigest()
    data: dict[str, Any] = {
        "event": event,
        "id": "G9Bn5sl1TC6nu79C8C0bwg",
        "timestamp": at.timestamp(),
        "severity": "permanent",
        "reason": "bounce",
        "recipient": ADDRESS,
        "message": {"headers": {"message-id": OURS.strip("<>")}},
        "delivery-status": {"code": 550, "message": f"5.1.1 {ADDRESS} unknown"},
    }
    signed = {"timestamp": timestamp, "token": token, "signature": signature}
    return {"signature": signed, "event-data": data | changed}


@pytest.mark.parametrize(
    ("said", "fate"),
    [
        (mailgun(), Fate.FAILED),
        (mailgun(severity="temporary"), Fate.DEFERRED),
        (mailgun("delivered"), Fate.DELIVERED),
        (mailgun("rejected"), Fate.FAILED),
        (mailgun("complained"), Fate.UNKNOWN),
        (mailgun("accepted"), None),
        (mailgun("opened"), None),
        (mailgun(message={}), None),
    ],
)
async def test_mailgun_words(said: Any, fate: Fate | None) -> None:
    reports = await read(Mailgun(SECRET), asked(said))
    assert [(report.fate, report.reference) for report in reports] == ([] if fate is None else [(fate, OURS)])


async def test_mailgun_bounce() -> None:
    (report,) = await read(Mailgun(SECRET), asked(mailgun()))
    assert (report.event_id, report.at) == ("mailgun:G9Bn5sl1TC6nu79C8C0bwg", NOW)
    assert report.detail == "bounced: bounce 550 5.1.1 *** unknown"


async def test_mailgun_token_is_good_for_one_body() -> None:
    """Its signature does not cover what it tells: who has seen one must not tell another thing with it."""
    provider = Mailgun(SECRET)
    assert await read(provider, asked(mailgun()))
    assert await read(provider, asked(mailgun())), "a retry is no forgery"
    with pytest.raises(Forged, match="token_used"):
        await read(provider, asked(mailgun("delivered")))
    assert await read(provider, asked(mailgun("delivered", token="t2")))


@pytest.mark.parametrize("hours", [-13, 13])
async def test_mailgun_is_stale_outside_the_tolerance(hours: int) -> None:
    with pytest.raises(Stale):
        await read(Mailgun(SECRET), asked(mailgun(at=NOW + timedelta(hours=hours))))
    assert await read(Mailgun(SECRET), asked(mailgun(at=NOW - timedelta(hours=8))))


@pytest.mark.parametrize(
    "said", [mailgun(key="wrong"), {"event-data": {}}, [], mailgun() | {"signature": {"token": 1}}]
)
async def test_mailgun_must_sign(said: Any) -> None:
    with pytest.raises(Forged):
        await read(Mailgun(SECRET), asked(said))


# --- SES -------------------------------------------------------------------------------------------------------------

TOPIC = "arn:aws:sns:eu-north-1:123456789012:bounces"
# What anybody had SNS keep, it gives back to whoever asks by a signed address: a certificate of one's own as well.
API_URL = "https://sns.eu-north-1.amazonaws.com/?Action=GetEndpointAttributes&X-Amz-Signature=a&x=.pem"
CERTIFICATE_URL = "https://sns.eu-north-1.amazonaws.com/SimpleNotificationService-abc.pem"
AMAZON_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(key: rsa.RSAPrivateKey = AMAZON_KEY) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(NOW - timedelta(days=30)).not_valid_after(NOW + timedelta(days=30))
    return built.sign(key, SHA256()).public_bytes(Encoding.PEM)


class Web:
    """What is at which address of Amazon's."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {CERTIFICATE_URL: certificate()}
        self.asked: list[str] = []

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.pages:
            raise TransientFailure("Amazon answered 404")
        return self.pages[url]


BOUNCE = {
    "notificationType": "Bounce",
    "mail": {"messageId": "0102019-abc-000000", "destination": [ADDRESS]},
    "bounce": {
        "bounceType": "Permanent",
        "bounceSubType": "General",
        "timestamp": "2026-11-22T09:00:00.000Z",
        "bouncedRecipients": [{"emailAddress": ADDRESS, "diagnosticCode": f"smtp; 550 5.1.1 {ADDRESS} unknown"}],
    },
}


def notified(content: object, *, version: str = "2", **changed: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "Type": "Notification",
        "MessageId": "22b80b92",
        "TopicArn": TOPIC,
        "Message": content if isinstance(content, str) else json.dumps(content),
        "Timestamp": "2026-11-22T09:00:01.000Z",
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE_URL,
        **changed,
    }
    return said | {"Signature": signed(said)}


def signed(said: dict[str, Any], key: rsa.RSAPrivateKey = AMAZON_KEY) -> str:
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{said[name]}\n" for name in names if name in said)
    algorithm: HashAlgorithm = SHA256() if said["SignatureVersion"] == "2" else SHA1()  # as Amazon does
    return base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), algorithm)).decode()


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", [{}, {"Subject": "Amazon SES Email Event Notification"}])
async def test_ses_bounce(version: str, subject: dict[str, str]) -> None:
    web = Web()
    provider = Amazon(topic=TOPIC, fetch=web.fetch)
    for _ in range(2):
        (report,) = await read(provider, asked(notified(BOUNCE, version=version, **subject)))
    assert report == Report(
        channel="email",
        event_id="ses:22b80b92",
        reference="0102019-abc-000000",
        fate=Fate.FAILED,
        at=NOW - timedelta(hours=1),
        detail="bounced: Permanent General smtp; 550 5.1.1 *** unknown",
    )
    assert web.asked == [CERTIFICATE_URL], "the certificate is fetched once"


@pytest.mark.parametrize(
    ("word", "member", "fate"),
    [
        ("Delivery", "delivery", Fate.DELIVERED),
        ("Bounce", "bounce", Fate.FAILED),
        ("Reject", "reject", Fate.FAILED),
        ("Rendering Failure", "failure", Fate.FAILED),
        ("DeliveryDelay", "deliveryDelay", Fate.DEFERRED),
        ("Complaint", "complaint", Fate.UNKNOWN),
        ("Send", "send", None),
        ("Open", "open", None),
    ],
)
async def test_ses_words(word: str, member: str, fate: Fate | None) -> None:
    about = {"timestamp": "2026-11-22T09:00:00.000Z"}
    mail = {"messageId": "0102", "commonHeaders": {"messageId": OURS}}
    said = {"eventType": word, "mail": mail, member: about}
    reports = await read(Amazon(topic=TOPIC, fetch=Web().fetch), asked(notified(said)))
    assert [(one.fate, one.reference, one.at) for one in reports] == (
        [] if fate is None else [(fate, OURS, NOW - timedelta(hours=1))]
    )


def resigned(said: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return it changed and signed anew by the same key."""
    changed_ = said | changed
    return changed_ | {"Signature": signed(changed_)}


FORGED = {
    "another's topic": resigned(notified(BOUNCE), TopicArn="arn:aws:sns:eu-north-1:999999999999:bounces"),
    "another message": notified(BOUNCE) | {"Message": json.dumps(BOUNCE | {"x": 1})},
    "another type": notified(BOUNCE) | {"Type": "UnsubscribeConfirmation"},
    "an unknown type": resigned(notified(BOUNCE), Type="Gossip"),
    "no signature": notified(BOUNCE) | {"Signature": None},
    "no base64": notified(BOUNCE) | {"Signature": "!"},
    "an unknown version": notified(BOUNCE) | {"SignatureVersion": "3"},
    "http": resigned(notified(BOUNCE), SigningCertURL=CERTIFICATE_URL.replace("https", "http")),
    "another host": resigned(notified(BOUNCE), SigningCertURL="https://evil.example/sns.eu.amazonaws.com.pem"),
    "a host that looks like it": resigned(
        notified(BOUNCE), SigningCertURL="https://sns.eu.amazonaws.com.evil.example/a"
    ),
    "a bucket": resigned(notified(BOUNCE), SigningCertURL="https://evil.s3.amazonaws.com/a.pem"),
    "a user": resigned(notified(BOUNCE), SigningCertURL="https://sns.eu-north-1.amazonaws.com@evil.example/a.pem"),
    "another port": resigned(notified(BOUNCE), SigningCertURL="https://sns.eu-north-1.amazonaws.com:8443/a.pem"),
    "a path besides": resigned(notified(BOUNCE), SigningCertURL=f"{CERTIFICATE_URL}?Action=GetEndpointAttributes"),
    "a space before it": resigned(notified(BOUNCE), SigningCertURL=f" {CERTIFICATE_URL}"),
    "a line after it": resigned(notified(BOUNCE), SigningCertURL=f"{CERTIFICATE_URL}\n"),
    "no port": resigned(notified(BOUNCE), SigningCertURL="https://sns.eu-north-1.amazonaws.com:x/a.pem"),
    "no object": [],
}


@pytest.mark.parametrize("said", FORGED.values(), ids=FORGED)
async def test_ses_forgeries(said: Any) -> None:
    web = Web()
    with pytest.raises(Forged):
        await read(Amazon(topic=TOPIC, fetch=web.fetch), asked(said))
    assert set(web.asked) <= {CERTIFICATE_URL}


async def test_ses_certificate_that_the_api_gives_back_is_nobodys() -> None:
    web, key = Web(), rsa.generate_private_key(public_exponent=65537, key_size=2048)
    web.pages[API_URL] = b"<Answer>" + certificate(key) + b"</Answer>"  # what reads certificates passes over the rest
    said = notified(BOUNCE, SigningCertURL=API_URL)
    with pytest.raises(Forged, match="not_amazons_address"):
        await read(Amazon(topic=TOPIC, fetch=web.fetch), asked(said | {"Signature": signed(said, key)}))


async def test_ses_certificate_of_another_key_expired_or_none() -> None:
    web = Web()
    provider = Amazon(topic=TOPIC, fetch=web.fetch)
    with pytest.raises(Forged, match="certificate_expired"):
        await read(provider, asked(notified(BOUNCE)), at=NOW + timedelta(days=31))
    web.pages[CERTIFICATE_URL] = certificate(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    with pytest.raises(Forged, match="bad_signature"):
        await read(Amazon(topic=TOPIC, fetch=web.fetch), asked(notified(BOUNCE)))
    web.pages[CERTIFICATE_URL] = b"<html>"
    with pytest.raises(Forged, match="bad_certificate"):
        await read(Amazon(topic=TOPIC, fetch=web.fetch), asked(notified(BOUNCE)))
    del web.pages[CERTIFICATE_URL]
    with pytest.raises(TransientFailure):
        await read(Amazon(topic=TOPIC, fetch=web.fetch), asked(notified(BOUNCE)))


def subscription(url: str) -> dict[str, Any]:
    said = notified("You have chosen to subscribe") | {"Type": "SubscriptionConfirmation", "Token": "2336412f37"}
    return resigned(said, SubscribeURL=url)


async def test_ses_subscription_is_confirmed_at_amazon_only() -> None:
    web = Web()
    good = "https://sns.eu-north-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f37"
    web.pages[good] = b"<ConfirmSubscriptionResponse/>"
    provider = Amazon(topic=TOPIC, fetch=web.fetch)
    assert await read(provider, asked(subscription(good))) == ()
    assert web.asked == [CERTIFICATE_URL, good]
    for other in ("https://evil.example/", good.replace("Confirm", "Un"), good.replace("?", "x?"), f"{good}\n"):
        with pytest.raises(Forged):
            await read(provider, asked(subscription(other)))
    with pytest.raises(Forged):
        await read(provider, asked(subscription(good) | {"Token": "other"}))
    assert web.asked == [CERTIFICATE_URL, good]


async def test_what_is_fetched_is_small_and_where_it_was_asked_for() -> None:
    answers = {
        "/fine": Reply(body=b"x" * 100_000),
        "/moved": Reply(status=302, headers={"location": "/fine"}),
        "/missing": Reply(status=404),
        "/large": Reply(body=b"x" * 100_001),
        "/lost": Reply(cut=0),
    }

    async def handle(seen: Seen) -> Reply:
        return answers[seen.target]

    async with serve(handle) as server, open_fetcher() as fetch:
        assert len(await fetch(f"{server.url}/fine")) == 100_000
        for path in ("/moved", "/missing", "/large", "/lost"):
            with pytest.raises(TransientFailure):
                await fetch(f"{server.url}{path}")
    assert [seen.target for seen in server.seen] == list(answers)


@pytest.mark.parametrize("content", ["Successfully validated SNS topic for Amazon SES event publishing.", "[]", "{}"])
async def test_ses_other_words_are_no_events(content: str) -> None:
    assert await read(Amazon(topic=TOPIC, fetch=Web().fetch), asked(notified(content))) == ()


# --- all of them -----------------------------------------------------------------------------------------------------

WORDS = ("event_type", "message_id", "recipient", "event", "smtp-id", "email", "message", "headers", "message-id")
SECRETS = {"sendgrid": SENDGRID_PUBLIC, "ses": TOPIC}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\0\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*POSTMARK, *BOUNCE, *WORDS]), inner),
    max_leaves=10,
)


@pytest.mark.parametrize("name", PROVIDERS)
@given(said=JSON)
async def test_no_document_is_a_bug(name: str, said: object) -> None:
    async with open_email_reports(name, SECRETS.get(name, SECRET)) as reports:
        for request in (asked(said), asked(said, query=f"secret={SECRET}")):
            try:
                await reports.read_reports(request, now=NOW)
            except (Forged, Unusable):
                continue


@given(said=JSON)
async def test_nor_is_an_authentic_one(said: object) -> None:
    timestamp = str(int(NOW.timestamp()))
    mark = hmac.new(SECRET.encode(), f"{timestamp}t".encode(), hashlib.sha256).hexdigest()
    signature = {"timestamp": timestamp, "token": "t", "signature": mark}
    await read(Mailgun(SECRET), asked({"signature": signature, "event-data": said}))
    await read(SendGrid(SENDGRID_PUBLIC), sendgrid(said, {**said, "smtp-id": OURS} if isinstance(said, dict) else said))
    await read(Amazon(topic=TOPIC, fetch=Web().fetch), asked(notified(json.dumps(said))))


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("postmark", "short"),
        ("generic", "short"),
        ("sendgrid", "no key"),
        ("sendgrid", "AAAA"),
        ("ses", "arn:aws:s3:::x"),
    ],
)
async def test_secrets_that_cannot_be_are_found_at_start(name: str, secret: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        async with open_email_reports(name, secret):
            pass
    assert secret not in str(caught.value)


def test_the_setting_knows_every_provider() -> None:
    assert set(PROVIDERS) | {""} == set(Settings.model_fields["receipts_email"].annotation.__args__)  # type: ignore[union-attr]
