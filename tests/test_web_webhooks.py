"""The provider account's webhooks through a real server on loopback: the answers of the contract, whatever comes."""

import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from service.delivery import Received, Store, StoreUnavailable
from service.dintero.webhook import WebhookAuthenticator, webhook_signature
from service.web.intake import LARGEST_BODY, MOST_READ
from service.web.public import public_app
from tests.fakes import MovedClock
from tests.test_web import ACCOUNT, SECRET, Face, exchange, header_lines, methods, serving

PATH = "/webhooks/dintero"
ID = f"{ACCOUNT}.abc"
CHANGED: dict[str, Any] = {"account_id": ACCOUNT, "event": "checkout_transaction", "transaction": {"id": ID}}
AUTHORIZED: dict[str, Any] = {
    "account_id": ACCOUNT,
    "event": "checkout_authorization",
    "authorization": {"transaction_id": ID},
}


def opened(made: Face, *, webhooks: bool) -> Iterator[Face]:
    check = WebhookAuthenticator(account_id=ACCOUNT, secrets=(SECRET,))
    app = public_app(
        authenticate=made.authenticate,
        authenticate_webhook=check.arrival if webhooks else None,
        store=cast("Store", made.store),
        wake=made.wake,
        metrics=made.metrics,
        clock=MovedClock(),
        prefixes=("/delivery",),
    )
    with serving(app) as made.port:
        yield made


@pytest.fixture(scope="module")
def running() -> Iterator[Face]:
    yield from opened(Face(), webhooks=True)


@pytest.fixture
def face(running: Face) -> Face:
    running.anew()
    return running


def deliver(face: Face, told: object, *, path: str = PATH, event: str = "x", **headers: str) -> tuple[int, Any]:
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    named = {"event": event, "event-signature": webhook_signature(SECRET, body)} | headers
    return face.ask("POST", path, body, **named)


@pytest.mark.parametrize("path", [PATH, f"/delivery{PATH}"])
@pytest.mark.parametrize("result", list(Received))
@pytest.mark.parametrize("told", [CHANGED, AUTHORIZED], ids=["transaction", "authorization"])
def test_a_webhook_is_answered_once_it_is_in_the_record(
    face: Face, path: str, result: Received, told: dict[str, Any]
) -> None:
    face.store.result = result
    with capture_logs() as logs:
        assert deliver(face, told, path=path) == (200, {})
    (arrival,) = face.store.arrivals
    assert (arrival.transaction_id, arrival.account_id, arrival.source) == (ID, ACCOUNT, "webhook")
    assert arrival.event is (told is CHANGED)
    assert face.wakes == (0 if result is Received.UNCHANGED else 1)
    assert face.counted(result) == 1
    (line,) = logs
    assert (line["event"], line["source"], line["result"], line["transaction_id"]) == (
        "callback.received",
        "webhook",
        result,
        ID,
    )


@pytest.mark.parametrize(
    ("told", "event", "result"),
    [
        ({"events": ["checkout_transaction"]}, "ping", "ping"),
        ({"event": "settlement_add"}, "settlement_add", "ignored"),
        ({**CHANGED, "transaction": {"id": ID, "payment_product": "vipps"}}, "checkout_transaction", "ignored"),
        ({**AUTHORIZED, "authorization": {"error": "cancelled"}}, "checkout_authorization", "error_report"),
    ],
)
def test_what_is_not_recorded(face: Face, told: dict[str, Any], event: str, result: str) -> None:
    face.store.broken = StoreUnavailable("down")  # it is not even asked
    assert deliver(face, told, event=event) == (200, {})
    assert (face.store.arrivals, face.wakes, face.counted(result)) == ([], 0, 1)


@pytest.mark.parametrize(
    ("headers", "told", "answer", "result"),
    [
        ({"event-signature": "0" * 40}, CHANGED, (401, {"error": "bad_signature"}), "forged"),
        ({"event-signature": "0" * 40}, {}, (401, {"error": "bad_signature"}), "forged"),
        ({"event-signature": "ø" * 40}, b"\xff", (401, {"error": "bad_signature"}), "forged"),
        ({}, {**CHANGED, "transaction": {}}, (400, {"error": "no_usable_transaction_id"}), "unusable"),
        ({}, {**CHANGED, "account_id": "T00000001"}, (400, {"error": "no_usable_transaction_id"}), "unusable"),
        ({}, b"no json", (400, {"error": "no_usable_transaction_id"}), "unusable"),
    ],
)
def test_refused_webhooks(
    face: Face, headers: dict[str, str], told: object, answer: tuple[int, object], result: str
) -> None:
    with capture_logs() as logs:
        assert deliver(face, told, **headers) == answer
    assert (face.store.arrivals, face.wakes, face.counted(result)) == ([], 0, 1)
    assert [(line["event"], line["source"], line["result"]) for line in logs] == [
        ("callback.rejected", "webhook", result)
    ]


def test_without_a_signature_it_is_forged(face: Face) -> None:
    assert face.ask("POST", PATH, json.dumps(CHANGED).encode()) == (401, {"error": "bad_signature"})


def test_no_commit_no_200(face: Face) -> None:
    face.store.broken = StoreUnavailable("down")
    assert deliver(face, CHANGED) == (503, {"error": "unavailable"})
    assert (face.wakes, face.counted("unavailable")) == (0, 1)
    face.store.broken = None
    assert deliver(face, CHANGED) == (200, {})


def padded(size: int) -> bytes:
    body = json.dumps(CHANGED).encode()
    return body + b" " * (size - len(body))


def test_a_mebibyte_is_read_whole_and_no_more(face: Face) -> None:
    assert deliver(face, padded(LARGEST_BODY)) == (200, {})
    for size in (LARGEST_BODY + 1, MOST_READ):
        assert deliver(face, padded(size)) == (413, {"error": "too_large"})
    assert (len(face.store.arrivals), face.counted("too_large")) == (1, 2)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_405(face: Face, method: str) -> None:
    assert face.ask(method, PATH)[0] == 405


@pytest.mark.parametrize("path", ["/webhooks", "/webhooks/", "/webhooks/dintero/", "/webhooks/other"])
def test_other_paths_are_404(face: Face, path: str) -> None:
    assert deliver(face, CHANGED, path=path) == (404, {"error": "not_found"})


def test_without_secrets_there_is_no_such_place() -> None:
    for face in opened(Face(), webhooks=False):
        for method in ("GET", "POST"):
            assert face.ask(method, PATH, b"{}") == (404, {"error": "not_found"})
        assert deliver(face, CHANGED) == (404, {"error": "not_found"})


@settings(max_examples=300, deadline=None)
@given(methods, st.lists(header_lines, max_size=3), st.binary(max_size=40), st.binary(max_size=60))
def test_no_request_causes_a_500(
    running: Face, method: bytes, headers: list[bytes], signature: bytes, body: bytes
) -> None:
    signed = b"Event-Signature: " + signature.replace(b"\r", b"").replace(b"\n", b"")
    lines = b"".join(line + b"\r\n" for line in (*headers, signed))
    before = len(running.store.arrivals)
    request = b"%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (method, PATH.encode(), lines, body)
    answer = exchange(running.port, request)
    assert answer[9:10] not in {b"5", b"2"}, answer
    assert len(running.store.arrivals) == before


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=9) | st.just(ID),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["event", "transaction", "authorization", "id", "error", "account_id", "transaction_id"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
        ).map(lambda told: json.dumps({"event": "checkout_transaction", "transaction": told}).encode()),
    )
)
def test_no_signed_body_causes_a_500(running: Face, body: bytes) -> None:
    running.store.broken = None
    status, _ = deliver(running, body, event="checkout_authorization")
    assert status in {200, 400}
