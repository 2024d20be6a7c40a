"""Fetching an invoice document: where from, with what, and how much of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.delivery import AccountFailure, BadDocument, DeliveryFailure, PermanentFailure, TransientFailure
from service.dintero.wire import Timeouts, place
from tests.scripted_provider import TOKEN_PATH, Scripted, scripted
from tests.servers import Loopback, Reply, Seen, json_reply, serve

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 100 + b"\n%%EOF\n"
DESCRIPTOR = json.loads((Path(__file__).parent / "data" / "file_descriptor.json").read_text())
FILE = "/api/v1/files/f-abc123"


def pdf(**headers: str) -> Reply:
    return Reply(body=PDF, headers={"content-type": "application/pdf", **headers})


def redirect(location: str, status: int = 302) -> Reply:
    return Reply(status=status, headers={"location": location})


@pytest.fixture
async def provider() -> AsyncIterator[Scripted]:
    async with scripted() as opened:
        yield opened


@pytest.fixture
async def cdn() -> AsyncIterator[Loopback]:
    """Another origin on an allowed host: the same address, another port."""

    async def handle(_: Seen) -> Reply:
        return pdf()

    async with serve(handle) as server:
        yield server


async def failure(provider: Scripted, url: str) -> DeliveryFailure:
    with pytest.raises(DeliveryFailure) as caught:
        await provider.dintero.invoice(url)
    return caught.value


async def test_the_bytes_at_once(provider: Scripted) -> None:
    provider.script.on(FILE, pdf())
    assert await provider.dintero.invoice(provider.server.url + FILE) == PDF
    (seen,) = provider.server.to(FILE)
    assert seen.headers["authorization"] == "Bearer token-1"
    assert seen.headers["accept-encoding"] == "identity"


async def test_both_origins_of_the_provider_get_the_token_and_no_other_does(provider: Scripted, cdn: Loopback) -> None:
    async with scripted(api_url=f"{provider.server.url}/api/v1", file_hosts=("127.0.0.1",)) as two:
        for server, path in ((provider, "/file"), (two, "/file")):
            server.script.on(path, pdf())
            assert await two.dintero.invoice(server.server.url + path) == PDF
            assert server.server.to(path)[0].headers["authorization"].startswith("Bearer ")
        assert await two.dintero.invoice(f"{cdn.url}/file") == PDF
        assert "authorization" not in cdn.seen[0].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_loses_the_token_at_another_origin(provider: Scripted, cdn: Loopback, status: int) -> None:
    provider.script.on(FILE, redirect(f"{cdn.url}/files/1", status))
    assert await provider.dintero.invoice(provider.server.url + FILE) == PDF
    assert provider.server.to(FILE)[0].headers["authorization"] == "Bearer token-1"
    assert "authorization" not in cdn.seen[0].headers
    assert cdn.seen[0].headers["dintero-system-name"] == "merchant-delivery"


async def test_a_relative_redirect_stays(provider: Scripted) -> None:
    provider.script.on(FILE, redirect("other?x=1"))
    provider.script.on("/api/v1/files/other", pdf())
    assert await provider.dintero.invoice(provider.server.url + FILE) == PDF
    assert provider.server.seen[-1].target == "/api/v1/files/other?x=1"


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "text/plain", ""])
async def test_a_descriptor_leads_to_the_bytes(provider: Scripted, cdn: Loopback, content_type: str) -> None:
    described = {**DESCRIPTOR, "url": f"{cdn.url}/files/PQ1234567.1234567890.abcdefg"}
    provider.script.on(FILE, Reply(headers={"content-type": content_type}, body=b" " + json.dumps(described).encode()))
    assert await provider.dintero.invoice(provider.server.url + FILE) == PDF
    assert [seen.target for seen in cdn.seen] == ["/files/PQ1234567.1234567890.abcdefg"]
    assert "authorization" not in cdn.seen[0].headers


async def test_a_pdf_that_calls_itself_json_is_a_pdf(provider: Scripted) -> None:
    provider.script.on(FILE, Reply(headers={"content-type": "application/json"}, body=PDF))
    assert await provider.dintero.invoice(provider.server.url + FILE) == PDF


async def test_an_old_token_is_fetched_anew_once(provider: Scripted) -> None:
    provider.script.on(FILE, json_reply({}, 401), pdf())
    assert await provider.dintero.invoice(provider.server.url + FILE) == PDF
    assert len(provider.server.to(TOKEN_PATH)) == 2
    provider.script.on(FILE, json_reply({}, 401))
    assert type(await failure(provider, provider.server.url + FILE)) is BadDocument


# --- where from -------------------------------------------------------------------------------------------------------


async def test_a_host_that_is_not_allowed_is_not_even_asked(provider: Scripted, cdn: Loopback) -> None:
    elsewhere = cdn.url.replace("127.0.0.1", "localhost")
    provider.script.on("/redirect", redirect(elsewhere))
    provider.script.on("/descriptor", json_reply({"url": elsewhere}))
    for url in (elsewhere, f"{provider.server.url}/redirect", f"{provider.server.url}/descriptor"):
        raised = await failure(provider, url)
        assert type(raised) is PermanentFailure
        assert "localhost" in raised.reason
    assert cdn.seen == []


@pytest.mark.parametrize(
    ("hosts", "url", "allowed"),
    [
        ("*.dintero.com", "https://cdn.dintero.com/x", True),
        ("*.dintero.com", "https://a.b.DINTERO.com:8443/x", True),
        ("*.Dintero.com", "https://cdn.dintero.com/x", True),
        ("*.dintero.com", "https://dintero.com/x", False),
        ("*.dintero.com", "https://evildintero.com/x", False),
        ("*.dintero.com", "https://cdn.dintero.com.evil.example/x", False),
        ("*.dintero.com", "https://evil.example/?https://cdn.dintero.com", False),
        ("*.dintero.com", "https://evil.example#.dintero.com", False),
        ("*.dintero.com", "https://evil.example\\.dintero.com/", False),
        ("*.dintero.com", "https://evil.example%2f.dintero.com/", False),
        ("*.dintero.com", "http://cdn.dintero.com/x", False),
        ("dintero.com", "https://dintero.com/x", True),
        ("dintero.com", "https://cdn.dintero.com/x", False),
        ("files.example,localhost", "http://localhost:9/x", True),
        ("files.example", "http://localhost/x", False),
        ("files.example", "http://127.0.0.1/x", False),
        ("127.0.0.1", "http://127.0.0.1/x", True),
        ("127.0.0.1", "https://127.0.0.1/x", True),
        ("127.0.0.1", "http://127.0.0.2/x", False),
        ("[::1]", "http://[::1]:8080/x", True),
        ("10.0.0.1", "http://10.0.0.1/x", False),
        ("files.example", "http://files.example/x", False),
    ],
)
async def test_which_hosts_are_allowed(hosts: str, url: str, allowed: bool) -> None:
    async with scripted(file_hosts=tuple(hosts.split(","))) as provider:
        files = provider.dintero._files
        try:
            at = place(url)
        except ValueError:
            assert not allowed
            return
        if allowed:
            assert files._allowed(at) is at
        else:
            with pytest.raises(PermanentFailure):
                files._allowed(at)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/files/1",
        "files/1",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "data:application/pdf,x",
        "https://user:pass@127.0.0.1/x",
        "https://user@127.0.0.1/x",
        "https://127.0.0.1:99999/x",
        "https://127.0.0.1:0/x",
        "https://[::1/x",
        "https:///x",
        "https://a..b/x",
        "https://127.0.0.1\n/x",
        f"https://{'a' * 64}.example/x",
    ],
)
async def test_a_link_that_cannot_be_used(provider: Scripted, url: str) -> None:
    assert type(await failure(provider, url)) is PermanentFailure
    if url.partition(":")[0] in ("ftp", "file", "data", "https"):
        provider.script.on(FILE, Reply(status=302, headers={"location": url.replace("\n", "\t")}))
        assert isinstance(await failure(provider, provider.server.url + FILE), PermanentFailure | TransientFailure)
    assert provider.tokens_fetched() <= 1


async def test_an_endless_chain_ends(provider: Scripted) -> None:
    provider.script.on(FILE, redirect(FILE))
    assert type(await failure(provider, provider.server.url + FILE)) is BadDocument
    assert len(provider.server.to(FILE)) == 5


async def test_a_link_to_nowhere_does_not_hold_up_the_account(provider: Scripted) -> None:
    async def never(_: Seen) -> Reply:
        return Reply()

    async with serve(never) as gone:
        url = gone.url
    assert type(await failure(provider, f"{url}/x")) is TransientFailure
    async with scripted(api_url=url) as other:
        assert isinstance(await failure(other, f"{url}/x"), AccountFailure)


# --- what -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(body=b""), BadDocument, "empty"),
        (Reply(body=b" \r\n"), BadDocument, "empty"),
        (Reply(status=204), BadDocument, "empty"),
        (Reply(headers={"content-type": "text/html"}, body=b"\n<!doctype html>"), BadDocument, "HTML"),
        (Reply(body=b"[1]"), BadDocument, "JSON"),
        (Reply(body=b"\x89PNG\r\n"), BadDocument, "PNG"),
        (Reply(body=b"plain"), BadDocument, "something else"),
        (Reply(body=b" " + PDF), BadDocument, "something else"),
        (json_reply({"id": "f"}), BadDocument, "without a url"),
        (json_reply({"url": 7}), BadDocument, "without a url"),
        (json_reply({"url": " "}), BadDocument, "without a url"),
        (json_reply([]), BadDocument, "without a url"),
        (Reply(body=b"{broken"), BadDocument, "not JSON"),
        (Reply(status=302), BadDocument, "nowhere"),
        (json_reply({"error": {"message": "gone"}}, 404), BadDocument, "answered 404 when fetching the invoice: gone"),
        (json_reply({}, 403), BadDocument, "403"),
        (json_reply({}, 410), BadDocument, "410"),
        (json_reply({}, 503, retry_after="5"), TransientFailure, "503"),
        (Reply(body=PDF, cut=0), TransientFailure, "broke"),
        (Reply(body=PDF, cut=1000), TransientFailure, "broke"),
        (Reply(body=b"%PDF-" + b"x" * 99_996), PermanentFailure, "MAX_PDF_BYTES"),
    ],
)
async def test_what_a_document_may_come_to(
    provider: Scripted, reply: Reply, kind: type[DeliveryFailure], words: str
) -> None:
    provider.script.on(FILE, reply)
    raised = await failure(provider, provider.server.url + FILE)
    assert isinstance(raised, kind)
    assert isinstance(raised, BadDocument) is (kind is BadDocument)
    assert not isinstance(raised, AccountFailure)
    assert words in raised.reason
    if isinstance(raised, TransientFailure) and "retry-after" in reply.headers:
        assert raised.retry_after == 5


async def test_a_refusal_elsewhere_names_the_host_and_not_its_words(provider: Scripted) -> None:
    async def refuse(_: Seen) -> Reply:
        return json_reply({"error": {"message": "whatever"}}, 403)

    async with serve(refuse) as elsewhere:
        raised = await failure(provider, f"{elsewhere.url}/x")
    assert raised.reason == "127.0.0.1 answered 403 when fetching the invoice"
    assert provider.tokens_fetched() == 0


async def test_the_largest_that_is_allowed(provider: Scripted) -> None:
    largest = b"%PDF-" + b"x" * 99_995
    provider.script.on(FILE, Reply(body=largest))
    assert await provider.dintero.invoice(provider.server.url + FILE) == largest


async def test_reading_stops_at_the_cap_however_it_comes(provider: Scripted) -> None:
    dripped = 0

    async def drip() -> AsyncIterator[bytes]:
        nonlocal dripped
        yield b"%PDF-"
        while True:
            dripped += 1000
            yield b"x" * 1000
            await asyncio.sleep(0)

    provider.script.on(FILE, Reply(drip=drip()))
    assert "MAX_PDF_BYTES" in (await failure(provider, provider.server.url + FILE)).reason
    assert dripped < 10_000_000


async def test_a_length_over_the_cap_is_not_read_at_all(provider: Scripted) -> None:
    provider.script.on(FILE, Reply(headers={"content-length": "100001"}, body=b"%PDF-", cut=5))
    assert type(await failure(provider, provider.server.url + FILE)) is PermanentFailure


async def test_a_document_that_drips_for_ever_is_given_up() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b"%"
            await asyncio.sleep(0.02)

    async with scripted(timeouts=Timeouts(read=1, file=0.2)) as provider:
        provider.script.on(FILE, Reply(drip=drip()))
        assert "in time" in (await failure(provider, provider.server.url + FILE)).reason
