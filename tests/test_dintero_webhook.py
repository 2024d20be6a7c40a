"""Who sent a webhook, and what is taken from it: the published payloads, and everything that is not one of them."""

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.delivery import Arrival, CallbackRefused, Forged, Unrecorded, Unusable, WebhookRequest
from service.dintero.reading import identifier
from service.dintero.webhook import WebhookAuthenticator, webhook_signature

ACCOUNT, SECRET, OLD_SECRET = "P12345678", "hook-sécret", "old-secret"
ID = f"{ACCOUNT}.465UfBENeLpkBvwmqfTC4k"
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
CHECK = WebhookAuthenticator(account_id=ACCOUNT, secrets=(SECRET, OLD_SECRET))

# The shapes of the provider's published examples.
TRANSACTION: dict[str, Any] = {
    "account_id": ACCOUNT,
    "event": "checkout_transaction",
    "event_delivery": "9ebb6d41-dca5-484e-8330-9c9fa96b60ba",
    "transaction": {"id": ID, "session_id": f"{ACCOUNT}.s", "merchant_reference": "ORDER-123", "status": "AUTHORIZED"},
}
CANCELLED: dict[str, Any] = {
    "account_id": ACCOUNT,
    "event": "checkout_authorization",
    "event_delivery": "9ebb6d41-dca5-484e-8330-9c9fa96b60ba",
    "authorization": {"merchant_reference": "ORDER-123", "session_id": f"{ACCOUNT}.s", "error": "cancelled"},
}
AUTHORIZED: dict[str, Any] = {
    **CANCELLED,
    "authorization": {"session_id": f"{ACCOUNT}.s", "transaction_id": ID},
    "transaction": {"id": ID, "payment_product": "kravia", "payment_product_type": "kravia.invoice_b2b"},
}
PING: dict[str, Any] = {
    "id": "3c90c3cc-0d44-4b50-8888-8dd25736052a",
    "active": True,
    "config": {"url": "https://shop.example/webhooks/dintero", "content_type": "application/json"},
    "events": ["checkout_transaction"],
}


def delivered(told: object, *, secret: str = SECRET, event: str | None = None) -> WebhookRequest:
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    return WebhookRequest(body=body, signature=webhook_signature(secret, body), event=event)


def judged(told: object, *, event: str | None = None) -> Arrival | Unrecorded:
    return CHECK.arrival(delivered(told, event=event), NOW)


def about(told: dict[str, Any], **transaction: object) -> dict[str, Any]:
    return {**told, "transaction": {**told["transaction"], **transaction}}


def test_the_signature_is_sha1_over_the_bytes() -> None:
    body = b'{ "a":1 }'
    wanted = hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()
    assert webhook_signature(SECRET, body) == wanted
    assert webhook_signature("key", b"The quick brown fox jumps over the lazy dog") == (
        "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9"
    )


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
def test_any_of_the_secrets_may_sign(secret: str) -> None:
    assert isinstance(CHECK.arrival(delivered(TRANSACTION, secret=secret), NOW), Arrival)


@pytest.mark.parametrize("odd", [str.upper, lambda text: f" {text} "])
def test_a_signature_may_be_written_otherwise(odd: Any) -> None:
    request = delivered(TRANSACTION)
    assert isinstance(CHECK.arrival(replace(request, signature=odd(request.signature)), NOW), Arrival)


@pytest.mark.parametrize(
    "request_",
    [
        replace(delivered(TRANSACTION), signature=None),
        replace(delivered(TRANSACTION), signature=""),
        replace(delivered(TRANSACTION), signature="é" * 40),
        replace(delivered(TRANSACTION), signature=webhook_signature(SECRET, b"")),
        replace(delivered(TRANSACTION), signature=webhook_signature("another", delivered(TRANSACTION).body)),
        replace(delivered(TRANSACTION), body=delivered(TRANSACTION).body + b"\n"),
        replace(delivered(b"not json"), signature="00"),
    ],
    ids=str,
)
def test_forged_webhooks(request_: WebhookRequest) -> None:
    with pytest.raises(Forged):
        CHECK.arrival(request_, NOW)


@pytest.mark.parametrize("header", [None, "checkout_transaction", "ping"])
def test_a_transaction_that_changed_is_an_event(header: str | None) -> None:
    """What the body says of the event is signed; what the header says is not."""
    assert judged(TRANSACTION, event=header) == Arrival(
        transaction_id=ID, account_id=ACCOUNT, at=NOW, event=True, source="webhook"
    )


def test_an_authorization_is_none() -> None:
    assert judged(AUTHORIZED) == Arrival(transaction_id=ID, account_id=ACCOUNT, at=NOW, event=False, source="webhook")
    without = {**AUTHORIZED, "transaction": None}
    assert isinstance(judged(without), Arrival)
    only = {**AUTHORIZED, "authorization": {}}
    assert isinstance(judged(only), Arrival)


def test_an_error_without_a_transaction_is_not_recorded() -> None:
    assert judged(CANCELLED) is Unrecorded.ERROR_REPORT
    with_id = {**CANCELLED, "authorization": {"error": "failed", "transaction_id": ID}}
    assert isinstance(judged(with_id), Arrival)


def test_a_ping_is_not_recorded() -> None:
    assert judged(PING, event="ping") is Unrecorded.PING


@pytest.mark.parametrize("event", ["settlement_add", "account_add", "", None, 1, ["checkout_transaction"], {}])
def test_other_events_are_ignored(event: object) -> None:
    assert judged({**TRANSACTION, "event": event}) is Unrecorded.IGNORED


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        ({"payment_product": "kravia"}, True),
        ({"payment_product_type": "kravia.invoice_b2c"}, True),
        ({"payment_product": "kravia", "payment_product_type": "kravia.invoice_b2b_grouped"}, True),
        ({"payment_product": None, "payment_product_type": 7}, True),
        ({"payment_product": "vipps"}, False),
        ({"payment_product_type": "bambora.creditcard"}, False),
        ({"payment_product": "collector", "payment_product_type": "collector.invoice_b2b"}, False),
    ],
)
def test_other_products_are_ignored(words: dict[str, object], ours: bool) -> None:
    told = judged(about(TRANSACTION, **words))
    assert isinstance(told, Arrival) is ours
    assert ours or told is Unrecorded.IGNORED


@pytest.mark.parametrize("account", ["P87654321", "T12345678", "", 12345678, [ACCOUNT]])
def test_another_account_is_refused(account: object) -> None:
    with pytest.raises(Unusable, match="another_account"):
        judged({**TRANSACTION, "account_id": account})


def test_without_an_account_it_is_ours_for_it_has_our_signature() -> None:
    assert isinstance(judged({key: value for key, value in TRANSACTION.items() if key != "account_id"}), Arrival)


@pytest.mark.parametrize("found", ["../x", ".a", "a..b", "a b", "a" * 101, "å", "\x00", 17, ["a"], {"id": ID}, True])
def test_an_unusable_id_is_said_to_be_one(found: object) -> None:
    with pytest.raises(Unusable, match="no_usable_id"):
        judged(about(TRANSACTION, id=found))


@pytest.mark.parametrize("told", [about(TRANSACTION, id=None), {**TRANSACTION, "transaction": []}])
def test_no_id_at_all(told: object) -> None:
    with pytest.raises(Unusable, match="no_usable_id"):
        judged(told)


def test_two_ids_are_none() -> None:
    with pytest.raises(Unusable, match="no_usable_id"):
        judged({**AUTHORIZED, "transaction": {"id": f"{ACCOUNT}.other"}})


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(Unusable, match="no_json"):
        CHECK.arrival(delivered(body, event="ping"), NOW)


@pytest.mark.parametrize("told", [[], 1, None, "checkout_transaction", [TRANSACTION]])
def test_what_is_no_object(told: object) -> None:
    with pytest.raises(Unusable, match="no_json_object"):
        judged(told)


ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from([ID, ACCOUNT])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
EVENTS = st.sampled_from(["checkout_transaction", "checkout_authorization", "ping", None])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "event": st.one_of(EVENTS, ANYTHING),
            "account_id": st.one_of(st.just(ACCOUNT), ANYTHING),
            "transaction": st.one_of(ANYTHING, st.fixed_dictionaries({"id": ANYTHING, "payment_product": ANYTHING})),
            "authorization": st.one_of(
                ANYTHING, st.fixed_dictionaries({"transaction_id": ANYTHING, "error": ANYTHING})
            ),
        },
    ),
    st.one_of(EVENTS, st.text(max_size=20)),
)
def test_no_authentic_body_is_anything_but_taken_or_refused(told: dict[str, Any], header: str | None) -> None:
    try:
        found = judged(told, event=header)
    except Unusable:
        return
    assert isinstance(found, Unrecorded) or identifier(found.transaction_id) == found.transaction_id


@given(st.binary(max_size=80), st.text(max_size=60))
def test_no_other_body_is_anything_but_a_refusal(body: bytes, signature: str) -> None:
    with pytest.raises(CallbackRefused):
        CHECK.arrival(WebhookRequest(body=body, signature=signature, event="ping"), NOW)
    try:
        CHECK.arrival(delivered(body, event="checkout_transaction"), NOW)
    except Unusable:
        return
