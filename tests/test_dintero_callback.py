"""The signature of a callback, against the published and computed vectors, and what is taken from its query."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.delivery import Arrival, CallbackRefused, CallbackRequest, Forged, Stale, Unrecorded, Unusable
from service.dintero.callback import (
    Authenticator,
    canonical_query,
    digest,
    parse_query,
    signed_header,
    signed_host,
    signed_path,
    signed_text,
)

VECTORS = json.loads((Path(__file__).parent / "data" / "signature_vectors.json").read_text())
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
ID = "T12345678.465UfBENeLpkBvwmqfTC4k"
QUERY = f"transaction_id={ID}&session_id=s&time=2026-07-01T12%3A00%3A00.000Z"


def authenticator(**changes: object) -> Authenticator:
    values: dict[str, object] = {
        "account_id": "T12345678",
        "secrets": ("old", "new"),
        "public_urls": ("https://pay.example", "https://Shop.Example:8443/dintero/"),
        "tolerance": 300.0,
    }
    return Authenticator(**{**values, **changes})  # type: ignore[arg-type]


def request(
    query: str = QUERY,
    *,
    base: str = "https://pay.example",
    secret: str = "new",
    method: str = "GET",
    at: datetime = NOW,
    account: str = "T12345678",
) -> CallbackRequest:
    url = f"{base}/callback?{query}"
    return CallbackRequest(
        method=method, raw_query=query, signature=signed_header(secret, account, method, url, int(at.timestamp()))
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["hex"][:8])
def test_every_vector_comes_out(vector: dict[str, str]) -> None:
    parts = urlsplit(vector["url"])
    text = signed_text(
        timestamp=str(vector["timestamp"]),
        account_id=vector["account_id"],
        method=vector["method"],
        host=signed_host(vector["url"]),
        path=signed_path(parts.path),
        query=canonical_query(parse_query(parts.query.encode())),
    )
    assert text.decode() == vector["payload"]
    assert digest(vector["secret"], text) == vector["hex"]
    header = signed_header(
        vector["secret"], vector["account_id"], vector["method"], vector["url"], int(vector["timestamp"])
    )
    assert header == vector["header"]


@pytest.mark.parametrize("vector", [v for v in VECTORS if urlsplit(v["url"]).path.endswith("/callback")])
def test_the_authenticator_takes_the_vectors_headers(vector: dict[str, str]) -> None:
    parts = urlsplit(vector["url"])
    taken = authenticator(
        account_id=vector["account_id"],
        secrets=(vector["secret"],),
        public_urls=(f"https://{parts.netloc}{parts.path.removesuffix('/callback')}",),
    )
    callback = CallbackRequest(method=vector["method"], raw_query=parts.query, signature=vector["header"])
    at = datetime.fromtimestamp(int(vector["timestamp"]), UTC)
    if "transaction_id" in parts.query:
        arrival = taken.arrival(callback, at)
        assert isinstance(arrival, Arrival)
        assert arrival.transaction_id == ID
    else:
        with pytest.raises(Unusable):
            taken.arrival(callback, at)


# --- the query, against a second writing of the rules in the URL standard ---------------------------------------------


def reference_decode(piece: bytes) -> str:
    piece = piece.replace(b"+", b" ")
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), piece).decode("utf-8", "replace")


def reference_encode(text: str) -> str:
    kept = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789*-._"
    return "".join(chr(b) if b in kept else "+" if b == 0x20 else f"%{b:02X}" for b in text.encode())


def reference_canonical(raw: bytes) -> str:
    pairs = []
    for piece in raw.split(b"&"):
        if piece:
            name, _, value = piece.partition(b"=")
            pairs.append((reference_decode(name), reference_decode(value)))

    def units(name: str) -> list[int]:
        encoded = name.encode("utf-16-le")
        return [int.from_bytes(encoded[i : i + 2], "little") for i in range(0, len(encoded), 2)]

    for end in range(len(pairs) - 1, 0, -1):  # a bubble sort is stable, and is not the one under test
        for i in range(end):
            if units(pairs[i][0]) > units(pairs[i + 1][0]):
                pairs[i], pairs[i + 1] = pairs[i + 1], pairs[i]
    return "&".join(f"{reference_encode(name)}={reference_encode(value)}" for name, value in pairs)


pieces = st.one_of(
    st.sampled_from(
        [b"&", b"=", b"+", b"%", b"%2", b"%zz", b"%41", b"%26", b"%ff", b"%F0%9F%98%80", b"~", b"*", b"a", b"b"]
    ),
    st.binary(max_size=3),
    st.characters().map(lambda c: c.encode("utf-8", "ignore")),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(pieces, max_size=30).map(b"".join))
def test_any_query_is_read_and_written_as_a_browser_does(raw: bytes) -> None:
    assert canonical_query(parse_query(raw)) == reference_canonical(raw)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5))))
def test_what_was_written_is_read_back_the_same(pairs: list[tuple[str, str]]) -> None:
    once = canonical_query(pairs)
    assert canonical_query(parse_query(once.encode())) == once


def test_names_are_sorted_by_utf_16_code_units() -> None:
    # U+1F600 is D83D DE00 in UTF-16 and so comes before U+FF5E, although its code point is larger.
    assert canonical_query([("\uff5e", "1"), ("\U0001f600", "2")]).endswith("%EF%BD%9E=1")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Shop.Example:8443/x", "shop.example"),
        ("https://blåbær.example", "xn--blbr-roah.example"),
        ("https://under_score.example", "under_score.example"),
        ("http://[::1]:80", "[::1]"),
    ],
)
def test_the_host_is_signed_as_a_browser_writes_it(url: str, host: str) -> None:
    assert signed_host(url) == host


def test_the_path_is_signed_as_a_browser_writes_it() -> None:
    assert signed_path("/bær/a b/%2F~(x)'") == "/b%C3%A6r/a%20b/%2F~(x)'"


# --- who is let in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["old", "new"])
@pytest.mark.parametrize("base", ["https://pay.example", "https://shop.example/dintero"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_any_secret_and_any_public_url_may_have_signed(secret: str, base: str, method: str) -> None:
    arrival = authenticator().arrival(request(secret=secret, base=base, method=method), NOW)
    assert arrival == Arrival(transaction_id=ID, account_id="T12345678", at=NOW)


def with_header(header: str | None) -> CallbackRequest:
    return CallbackRequest(method="GET", raw_query=QUERY, signature=header)


def good() -> str:
    header = request().signature
    assert header is not None
    return header


def test_further_signatures_and_unknown_schemes_are_tolerated() -> None:
    time, signature = good().split(",")
    for header in (
        f"v9-rot13=x,{time},v0-hmac-sha256={'0' * 64},{signature}",
        f" {time} , {signature} ,junk,=,",
        f"{time},{signature},t=1",
    ):
        assert isinstance(authenticator().arrival(with_header(header), NOW), Arrival)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        "t=,v0-hmac-sha256=",
        "t=1582236537",
        f"v0-hmac-sha256={'0' * 64}",
        f"t=x,v0-hmac-sha256={'0' * 64}",
        f"t=-5,v0-hmac-sha256={'0' * 64}",
        f"t=\u0661\u0662,v0-hmac-sha256={'0' * 64}",
        f"t={'9' * 5000},v0-hmac-sha256={'0' * 64}",
        "t=1,v0-hmac-sha256=\xe6\xf8\xe5\udc80",
        "," * 1000,
    ],
)
def test_a_header_that_proves_nothing_is_forged(header: str | None) -> None:
    with pytest.raises(Forged):
        authenticator().arrival(with_header(header), NOW)


def test_what_was_signed_for_something_else_is_forged() -> None:
    for forged in (
        request(secret="other"),
        request(base="https://elsewhere.example"),
        request(base="https://pay.example/dintero"),
        request(base="https://shop.example"),
        request(account="P12345678"),
        with_header(good().replace("t=1", "t=2", 1)),
        with_header(good()[:-1]),
        CallbackRequest(method="POST", raw_query=QUERY, signature=good()),
        CallbackRequest(method="GET", raw_query=QUERY + "&a=b", signature=good()),
        CallbackRequest(method="GET", raw_query=QUERY.replace("T1", "T2"), signature=good()),
    ):
        with pytest.raises(Forged):
            authenticator().arrival(forged, NOW)


def test_age_is_checked_both_ways_and_after_the_signature() -> None:
    for seconds in (-300, 300):
        assert isinstance(authenticator().arrival(request(at=NOW + timedelta(seconds=seconds)), NOW), Arrival)
    for seconds in (-301, 301):
        with pytest.raises(Stale):
            authenticator().arrival(request(at=NOW + timedelta(seconds=seconds)), NOW)
        with pytest.raises(Forged):
            authenticator().arrival(request(at=NOW + timedelta(seconds=seconds), secret="wrong"), NOW)
    with pytest.raises(Stale):
        authenticator().arrival(request("nothing=1", at=NOW - timedelta(days=1)), NOW)


def test_reordered_and_differently_escaped_parameters_are_the_same() -> None:
    signed = request("transaction_id=T1.a&note=a%20b%7E")
    changed = CallbackRequest(method="GET", raw_query="note=a+b~&transaction_id=T1%2Ea", signature=signed.signature)
    assert isinstance(authenticator().arrival(changed, NOW), Arrival)


def test_without_secrets_everything_is_taken_at_any_age() -> None:
    arrival = authenticator(secrets=()).arrival(with_header(None), NOW)
    assert isinstance(arrival, Arrival)
    assert arrival.transaction_id == ID


@pytest.mark.parametrize(
    "query",
    [
        "",
        "a=b",
        "transaction_id=",
        "transaction_id=T1.a&transaction_id=T1.b",
        "transaction_id=.hidden",
        "transaction_id=T1..a",
        "transaction_id=T1%2Fa",
        "transaction_id=T1.a%00",
        "transaction_id=T1.a%0A",
        "transaction_id=%C3%B8",
        f"transaction_id={'a' * 101}",
        "transaction_id=..&error=failed",
        "error=",
    ],
)
def test_an_unusable_id_is_said_to_be_one(query: str) -> None:
    with pytest.raises(Unusable):
        authenticator().arrival(request(query), NOW)


@pytest.mark.parametrize("found", ["a", "a" * 100, "T1.a_b-c", "A.B.C"])
def test_usable_ids(found: str) -> None:
    arrival = authenticator().arrival(request(f"transaction_id={found}&transaction_id={found}"), NOW)
    assert isinstance(arrival, Arrival)
    assert arrival.transaction_id == found


def test_an_error_without_an_id_is_authentic_and_nothing_to_record() -> None:
    assert authenticator().arrival(request("error=cancelled&transaction_id="), NOW) is Unrecorded.ERROR_REPORT
    with_id = authenticator().arrival(request(f"error=failed&transaction_id={ID}"), NOW)
    assert isinstance(with_id, Arrival)
    with pytest.raises(Forged):
        authenticator().arrival(CallbackRequest(method="GET", raw_query="error=x", signature=None), NOW)


def test_an_event_is_noted() -> None:
    for query, event in (
        (f"{QUERY}&event=VOID&event_id=3", True),
        (QUERY, False),
        (f"{QUERY}&report_event=VOID", False),
    ):
        arrival = authenticator().arrival(request(query), NOW)
        assert isinstance(arrival, Arrival)
        assert arrival.event is event


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60).map(lambda b: b.decode("latin-1")), st.text(max_size=60))
def test_no_request_makes_anything_but_a_refusal(query: str, header: str) -> None:
    with pytest.raises(CallbackRefused):
        authenticator().arrival(CallbackRequest(method="GET", raw_query=query, signature=header), NOW)
