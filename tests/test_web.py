"""The HTTP faces, through a real server on loopback: the answers of the contract, whatever comes."""

import json
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from typing import Any, cast

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from service.delivery import (
    Arrival,
    CallbackRequest,
    CommitInDoubt,
    Counts,
    Forged,
    Outcome,
    Received,
    Stale,
    Store,
    StoreUnavailable,
    Unrecorded,
    Unusable,
)
from service.dintero.callback import Authenticator, signed_header
from service.metrics import CALLBACK_RESULTS, Metrics
from service.web.health import Trouble, admin_app
from service.web.intake import LARGEST_BODY, MOST_READ
from service.web.public import public_app
from tests.fakes import MovedClock

ACCOUNT, SECRET = "T12345678", "a-secret"
COUNTS = Counts(outcomes=((Outcome.OPEN, 3), (Outcome.FAILED, 1)), due=2, overdue=1, oldest_open_age=61.5)


@dataclass(slots=True, kw_only=True)
class FakeStore:
    """Remembers what it was given; `broken` is raised instead."""

    arrivals: list[Arrival] = field(default_factory=list)
    result: Received = Received.NEW
    broken: Exception | None = None

    async def receive(self, arrival: Arrival) -> Received:
        await self.ping()
        self.arrivals.append(arrival)
        return self.result

    async def ping(self) -> None:
        if self.broken is not None:
            raise self.broken

    async def counts(self) -> Counts:
        await self.ping()
        return COUNTS


@dataclass(slots=True, kw_only=True)
class Face:
    """A running server, and what a test changes behind it."""

    port: int = 0
    store: FakeStore = field(default_factory=FakeStore)
    metrics: Metrics = field(default_factory=Metrics)
    asked: list[CallbackRequest] = field(default_factory=list)
    wakes: int = 0
    refusal: Exception | None = None
    without_id: bool = False
    troubles: Sequence[Trouble] = ()
    earlier: dict[str, float] = field(default_factory=dict)

    def authenticate(self, request: CallbackRequest, now: datetime) -> Arrival | Unrecorded:
        self.asked.append(request)
        if self.refusal is not None:
            raise self.refusal
        if self.without_id:
            return Unrecorded.ERROR_REPORT
        return Arrival(transaction_id="T12345678.abc", account_id=ACCOUNT, at=now)

    def wake(self) -> None:
        self.wakes += 1

    async def ready(self) -> Sequence[Trouble]:
        return self.troubles

    def ask(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of an answer."""
        with connection(self.port) as conn:
            conn.request(method, target, body=body, headers=headers)
            answer = conn.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None

    def counted(self, result: str) -> float:
        """Return how many callbacks of a result there were in this test."""
        return self._total(result) - self.earlier.get(result, 0.0)

    def anew(self) -> None:
        """Forget what an earlier test did: a server for each would take its time to stop."""
        self.store.arrivals, self.store.result, self.store.broken = [], Received.NEW, None
        self.asked, self.wakes, self.refusal, self.without_id, self.troubles = [], 0, None, False, ()
        self.earlier = {result: self._total(result) for result in CALLBACK_RESULTS}

    def _total(self, result: str) -> float:
        name = f'merchant_delivery_callbacks_total{{result="{result}"}} '
        (line,) = [line for line in self.metrics.render(None).decode().splitlines() if line.startswith(name)]
        return float(line.removeprefix(name))


@contextmanager
def connection(port: int) -> Iterator[HTTPConnection]:
    conn = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        yield conn
    finally:
        conn.close()


@contextmanager
def serving(app: ASGIApp) -> Iterator[int]:
    """Serve on a free port of loopback, in a thread."""
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def public_face() -> Iterator[Face]:
    made = Face()
    app = public_app(
        authenticate=made.authenticate,
        store=cast("Store", made.store),
        wake=made.wake,
        metrics=made.metrics,
        clock=MovedClock(),
        prefixes=("/delivery",),
    )
    with serving(app) as made.port:
        yield made


@pytest.fixture
def face(public_face: Face) -> Face:
    public_face.anew()
    return public_face


@pytest.fixture(scope="module")
def admin_face() -> Iterator[Face]:
    made = Face()
    with serving(admin_app(store=cast("Store", made.store), metrics=made.metrics, ready=made.ready)) as made.port:
        yield made


@pytest.fixture
def admin(admin_face: Face) -> Face:
    admin_face.anew()
    return admin_face


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/callback", "/delivery/callback"])
@pytest.mark.parametrize("result", list(Received))
def test_a_callback_is_answered_once_it_is_in_the_record(face: Face, method: str, path: str, result: Received) -> None:
    face.store.result = result
    with capture_logs() as logs:
        assert face.ask(method, f"{path}?transaction_id=T1") == (200, {})
    assert [arrival.transaction_id for arrival in face.store.arrivals] == ["T12345678.abc"]
    assert face.wakes == (0 if result is Received.UNCHANGED else 1)
    assert face.counted(result) == 1
    (line,) = logs
    assert line["event"] == "callback.received"
    assert (line["result"], line["transaction_id"], line["log_level"]) == (result, "T12345678.abc", "info")
    assert line["duration_ms"] >= 0


def test_what_was_signed_comes_through_as_it_was_sent(face: Face) -> None:
    with connection(face.port) as conn:
        conn.putrequest("POST", "/callback?b=%7E+%20&a=%c3%b8&a")
        conn.putheader("Dintero-Signature", "t=1,v0-hmac-sha256=aa")
        conn.putheader("dintero-signature", "v1=bb")
        conn.putheader("Content-Length", "2")
        conn.endheaders(b"{}")
        assert conn.getresponse().status == 200
    (asked,) = face.asked
    assert asked == CallbackRequest(
        method="POST", raw_query="b=%7E+%20&a=%c3%b8&a", signature="t=1,v0-hmac-sha256=aa,v1=bb"
    )
    face.ask("GET", "/callback")
    assert face.asked[1] == CallbackRequest(method="GET", raw_query="", signature=None)


@pytest.mark.parametrize(
    ("refusal", "status", "word", "result"),
    [
        (Forged("no_signature"), 401, "bad_signature", "forged"),
        (Stale("too_old"), 503, "outside_tolerance", "stale"),
        (Unusable("no_id"), 400, "no_usable_transaction_id", "unusable"),
    ],
)
def test_refused_callbacks(face: Face, refusal: Exception, status: int, word: str, result: str) -> None:
    face.refusal = refusal
    with capture_logs() as logs:
        assert face.ask("GET", "/callback?transaction_id=forged-id") == (status, {"error": word})
    assert (face.store.arrivals, face.wakes, face.counted(result)) == ([], 0, 1)
    (line,) = logs
    assert (line["event"], line["result"], line["reason"]) == ("callback.rejected", result, str(refusal))
    assert "forged-id" not in str(line)


def test_an_error_report_without_an_id_is_taken_and_not_recorded(face: Face) -> None:
    face.without_id = True
    with capture_logs() as logs:
        assert face.ask("GET", "/callback?error=cancelled") == (200, {})
    assert (face.store.arrivals, face.wakes, face.counted("error_report")) == ([], 0, 1)
    assert [line["event"] for line in logs] == ["callback.received"]


@pytest.mark.parametrize("broken", [StoreUnavailable("down"), CommitInDoubt("lost"), RuntimeError("a bug")])
def test_no_commit_no_200(face: Face, broken: Exception) -> None:
    face.store.broken = broken
    with capture_logs() as logs:
        assert face.ask("POST", "/callback") == (503, {"error": "unavailable"})
    assert (face.wakes, face.counted("unavailable")) == (0, 1)
    (line,) = logs
    assert line["event"] == "callback.rejected"
    assert bool(line["exc_info"]) is isinstance(broken, RuntimeError)
    face.store.broken = None
    assert face.ask("POST", "/callback") == (200, {})


def test_a_bug_in_the_check_makes_the_provider_call_again(face: Face) -> None:
    face.refusal = ZeroDivisionError()
    assert face.ask("GET", "/callback") == (503, {"error": "unavailable"})


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "QUERY"])
@pytest.mark.parametrize("path", ["/callback", "/delivery/callback", "/livez", "/readyz"])
def test_other_methods_are_405(face: Face, method: str, path: str) -> None:
    with connection(face.port) as conn:
        conn.request(method, path)
        answer = conn.getresponse()
        assert answer.status == 405
        assert answer.headers["allow"] == ("GET, POST" if path.endswith("callback") else "GET")
        assert (method == "HEAD") is (answer.read() == b"")
    assert face.asked == []


@pytest.mark.parametrize(
    "path",
    ["/", "/callback/", "/Callback", "//callback", "/delivery", "/other/callback", "/metrics", "/callback/x", "*"],
)
def test_other_paths_are_404(face: Face, path: str) -> None:
    assert face.ask("GET", path) == (404, {"error": "not_found"})
    assert face.asked == []


def chunks(size: int) -> Iterator[bytes]:
    for at in range(0, size, 1 << 16):
        yield b"x" * min(1 << 16, size - at)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_a_mebibyte_is_read_and_ignored(face: Face, chunked: bool) -> None:
    body = chunks(LARGEST_BODY) if chunked else b"x" * LARGEST_BODY
    assert face.ask("POST", "/callback", body) == (200, {})


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [LARGEST_BODY + 1, MOST_READ])
def test_a_larger_body_is_413_and_the_connection_goes_on(face: Face, chunked: bool, size: int) -> None:
    with connection(face.port) as conn, capture_logs() as logs:
        conn.request("POST", "/callback", body=chunks(size) if chunked else b"x" * size)
        answer = conn.getresponse()
        assert (answer.status, answer.read()) == (413, b'{"error":"too_large"}')
        before = conn.sock
        conn.request("GET", "/livez")
        assert conn.getresponse().status == 200
        assert conn.sock is before
    assert (face.asked, face.store.arrivals, face.counted("too_large")) == ([], [], 1)
    assert [(line["event"], line["reason"]) for line in logs] == [("callback.rejected", "too_large")]


@pytest.mark.parametrize("announced", [MOST_READ + 1, 1 << 40])
def test_a_far_larger_body_ends_the_connection(face: Face, announced: int) -> None:
    with socket.create_connection(("127.0.0.1", face.port), timeout=10) as sock:
        sock.sendall(b"POST /callback HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % announced)
        sock.sendall(bytes(MOST_READ + 1))
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    assert face.store.arrivals == []
    assert face.ask("GET", "/livez") == (200, {})


def read_all(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_a_caller_who_hangs_up_halfway_is_nobodys_trouble(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    with capture_logs() as logs:
        with socket.create_connection(("127.0.0.1", face.port), timeout=10) as sock:
            sock.sendall(b"POST /callback HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        assert face.ask("GET", "/livez") == (200, {})
    assert (face.asked, face.store.arrivals, logs, caplog.records) == ([], [], [], [])


def test_a_caller_who_does_not_wait_is_recorded(face: Face) -> None:
    with socket.create_connection(("127.0.0.1", face.port), timeout=10) as sock:
        sock.sendall(b"POST /callback HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nfull")
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)
    assert len(face.store.arrivals) == 1


def test_health_says_no_more_than_it_should(face: Face) -> None:
    assert face.ask("GET", "/livez") == (200, {})
    assert face.ask("GET", "/readyz") == (200, {})
    assert face.ask("GET", "/delivery/readyz") == (200, {})
    for broken in (StoreUnavailable("host db.internal refuses"), RuntimeError("a bug")):
        face.store.broken = broken
        assert face.ask("GET", "/livez") == (200, {})
        status, said = face.ask("GET", "/readyz")
        assert status == 503
        assert "internal" not in str(said)


def test_the_admin_port_names_what_is_wrong(admin: Face) -> None:
    assert admin.ask("GET", "/livez") == (200, {})
    assert admin.ask("GET", "/readyz") == (200, {"ready": True, "troubles": []})
    admin.troubles = [Trouble(part="email", detail="535 for kari@nordmann.example", blocking=False)]
    paused = {"part": "email", "detail": "535 for ***", "blocking": False}
    assert admin.ask("GET", "/readyz") == (200, {"ready": True, "troubles": [paused]})
    admin.troubles = [*admin.troubles, Trouble(part="worker", detail="stopped", blocking=True)]
    status, said = admin.ask("GET", "/readyz")
    assert (status, said["ready"], len(said["troubles"])) == (503, False, 2)
    admin.store.broken = StoreUnavailable("the disk is full")
    assert admin.ask("GET", "/readyz") == (
        503,
        {"ready": False, "troubles": [{"part": "store", "detail": "the disk is full", "blocking": True}]},
    )


def test_the_admin_port_takes_no_callbacks(admin: Face) -> None:
    assert admin.ask("GET", "/callback")[0] == 404
    assert admin.ask("POST", "/metrics")[0] == 405


def metrics_of(face: Face) -> tuple[str, str]:
    with connection(face.port) as conn:
        conn.request("GET", "/metrics")
        answer = conn.getresponse()
        assert answer.status == 200
        return answer.headers["content-type"], answer.read().decode()


def test_metrics_are_prometheus_text(admin: Face) -> None:
    for _ in range(2):
        admin.metrics.callback("woken")
    admin.metrics.step("deliver", 0.2)
    admin.metrics.closed("completed")
    admin.metrics.send("email", "accepted")
    admin.metrics.capture("accepted")
    admin.metrics.alarm("alarm.paused")
    kind, text = metrics_of(admin)
    assert kind.startswith("text/plain")
    for line in (
        'merchant_delivery_callbacks_total{result="woken"} 2.0',
        'merchant_delivery_closed_total{outcome="completed"} 1.0',
        'merchant_delivery_sends_total{channel="email",outcome="accepted"} 1.0',
        'merchant_delivery_captures_total{outcome="accepted"} 1.0',
        'merchant_delivery_alarms_total{alarm="paused"} 1.0',
        'merchant_delivery_step_seconds_bucket{le="0.25",step="deliver"} 1.0',
        'merchant_delivery_deliveries{outcome="open"} 3.0',
        'merchant_delivery_deliveries{outcome="completed"} 0.0',
        "merchant_delivery_due 2.0",
        "merchant_delivery_overdue 1.0",
        "merchant_delivery_oldest_open_age_seconds 61.5",
    ):
        assert line in text.splitlines()
    for result in CALLBACK_RESULTS:
        assert f'callbacks_total{{result="{result}"}}' in text


def test_metrics_outlive_the_store(admin: Face) -> None:
    admin.store.broken = StoreUnavailable("down")
    admin.metrics.callback("unavailable")
    _, text = metrics_of(admin)
    assert 'merchant_delivery_callbacks_total{result="unavailable"} 1.0' in text
    assert "merchant_delivery_due" not in text


@pytest.fixture(scope="module")
def hardened() -> Iterator[Face]:
    """The real check of signatures behind a real server."""
    made = Face()
    check = Authenticator(
        account_id=ACCOUNT, secrets=(SECRET,), public_urls=("https://shop.example/delivery",), tolerance=300
    )
    app = public_app(
        authenticate=check.arrival,
        store=cast("Store", made.store),
        wake=made.wake,
        metrics=made.metrics,
        clock=MovedClock(),
        prefixes=("/delivery",),
    )
    with serving(app) as made.port:
        yield made


def signed(query: str, method: str = "GET") -> str:
    url = f"https://shop.example/delivery/callback?{query}"
    return signed_header(SECRET, ACCOUNT, method, url, int(datetime.now(UTC).timestamp()))


def test_a_really_signed_callback_is_taken(hardened: Face) -> None:
    query = "transaction_id=T12345678.abc&report_error=true"
    assert hardened.ask("GET", f"/callback?{query}", **{"dintero-signature": signed(query)}) == (200, {})
    assert hardened.ask("GET", f"/callback?{query}", **{"dintero-signature": signed("x=1")})[0] == 401
    assert hardened.ask("GET", "/callback?x=1", **{"dintero-signature": signed("x=1")})[0] == 400


def exchange(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        try:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)
        except ConnectionError:  # it closed on us, which is an answer too
            return b""


odd_bytes = st.binary(max_size=60).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b""))
targets = st.one_of(
    odd_bytes.map(lambda raw: b"/callback?" + raw.replace(b" ", b"")),
    odd_bytes.map(lambda raw: b"/" + raw),
    st.sampled_from(
        [
            b"/callback?transaction_id=%00",
            b"/callback?%",
            b"/callback?transaction_id=%zz&transaction_id=%ff",
            b"/callback?" + b"a&" * 20_000,
            b"/callback?transaction_id=" + b"9" * 9_000,
            b"/%63allback",
            b"/callback%2f",
            b"/\xe2\x82\xac",
            b"http://evil.example/callback",
            b"*",
            b"?",
            b"/delivery/../callback",
        ]
    ),
)
header_lines = st.one_of(
    st.sampled_from(
        [
            b"Content-Length: -1",
            b"Content-Length: 5",
            b"Content-Length: 99999999999999999999",
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b"Upgrade: websocket\r\nConnection: upgrade",
            b"Dintero-Signature: t=1,v0-hmac-sha256=aa",
            b"Dintero-Signature: t=\xff,v0-hmac-sha256=\xc3\xb8",
            b"Dintero-Signature: " + b"9" * 5_000,
        ]
    ),
    odd_bytes.map(lambda raw: b"Dintero-Signature: " + raw),
    odd_bytes.map(lambda raw: b"X-Odd: " + raw),
)
methods = st.sampled_from([b"GET", b"POST", b"HEAD", b"CONNECT", b"get", b"BREW"])


@settings(max_examples=400, deadline=None)
@given(methods, targets, st.lists(header_lines, max_size=4), st.binary(max_size=40))
def test_no_request_causes_a_500(
    hardened: Face, method: bytes, target: bytes, headers: list[bytes], body: bytes
) -> None:
    request = b"%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (method, target, b"".join(h + b"\r\n" for h in headers), body)
    before = len(hardened.store.arrivals)
    answer = exchange(hardened.port, request)
    assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert not answer.startswith(b"HTTP/1.1 2") or b"livez" in target or b"readyz" in target, answer
    assert len(hardened.store.arrivals) == before


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_no_signed_query_causes_a_500(hardened: Face, query: str) -> None:
    request = f"GET /callback?{query} HTTP/1.1\r\nHost: x\r\nDintero-Signature: {signed(query)}\r\n\r\n"
    answer = exchange(hardened.port, request.encode())
    assert answer[9:12] in {b"200", b"400", b"401"}, answer


def test_nothing_above_went_through_the_servers_own_error_path(
    hardened: Face, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        for path in ("/callback?%", "/nowhere", "/callback%00"):
            exchange(hardened.port, f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".encode())
    assert caplog.records == []
