"""The invoice pages' answers, through a real server: what is shown, to whom, and what never tells anything."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from starlette.requests import Request as Asked
from structlog.testing import capture_logs

from service.delivery import Brand, Outcome, Request, TransientFailure
from service.log import configure
from service.metrics import Metrics
from service.render import TemplateError, open_pages
from service.render.colors import contrast
from service.serving import listen, origin, serving
from service.web.asgi import application
from service.web.pages import Limit, _client, invoice_pages
from tests.fakes import PDF, MovedClock
from tests.pages import BRAND, Site, open_site
from tests.pictures import png

SAFE = {
    "cache-control": "private, no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex, nofollow, noarchive",
}
UNKNOWN = "A" * 22


@pytest.fixture
async def site(sqlite_url: str) -> AsyncIterator[Site]:
    async with open_site(sqlite_url) as opened:
        yield opened


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=site.url, trust_env=False) as client:
        yield client


def safe(answer: httpx.Response) -> bool:
    return (
        SAFE.items() <= dict(answer.headers).items()
        and "default-src 'none'" in answer.headers["content-security-policy"]
    )


async def test_the_page_shows_what_one_checks_and_pays_by(site: Site, browser: httpx.AsyncClient) -> None:
    token = await site.token(PDF)
    answer = await browser.get(f"/i/{token}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert safe(answer)
    for shown in ("Nordlys Møbler AS", "A1B2C-000001", "12\u00a0345,50", "0012345678903", "order-123", "923"):
        assert shown in answer.text, shown
    assert '<html lang="nb"' in answer.text
    assert f'href="{token}/invoice.pdf"' in answer.text
    assert "<script" not in answer.text
    assert " style=" not in answer.text


async def test_the_document_comes_under_its_name(site: Site, browser: httpx.AsyncClient) -> None:
    token = await site.token(PDF, locale="en")
    answer = await browser.get(f"/i/{token}/invoice.pdf")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PDF, "application/pdf")
    assert safe(answer)
    name = "Invoice-A1B2C-000001.pdf"
    assert answer.headers["content-disposition"] == f"inline; filename=\"{name}\"; filename*=UTF-8''{name}"


async def test_head_is_get_without_a_body_and_opens_nothing(site: Site, browser: httpx.AsyncClient) -> None:
    token = await site.token(PDF)
    for path in (f"/i/{token}", f"/i/{token}/invoice.pdf", f"/i/{UNKNOWN}"):
        head = await browser.head(path)
        (link,) = await site.store.links_of(site.delivery.id)
        assert link.opened_at is None or path.endswith(UNKNOWN)
        got = await browser.get(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
    assert (await site.store.links_of(site.delivery.id))[0].opened_at is not None


async def test_a_look_consumes_nothing(site: Site, browser: httpx.AsyncClient) -> None:
    token = await site.token(PDF)
    before = await site.store.links_of(site.delivery.id)
    first = await browser.get(f"/i/{token}")
    assert await site.store.links_of(site.delivery.id) == before
    assert (await browser.get(f"/i/{token}")).text == first.text


async def test_unknown_and_revoked_are_alike_to_the_last_byte(site: Site, browser: httpx.AsyncClient) -> None:
    token = await site.token(PDF)
    asked = Request(by="kari", at=site.clock.now())
    assert (await browser.get(f"/i/{token}")).status_code == 200
    await site.store.revoke_links(site.delivery.id, asked)
    answers = []
    for path in (token, UNKNOWN, f"{token}/invoice.pdf", f"{UNKNOWN}/invoice.pdf", "short", "x" * 500, "%00%ff"):
        answer = await browser.get(f"/i/{path}")
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        answers.append((answer.status_code, headers, answer.content))
    assert answers[0][0] == 404
    assert all(answer == answers[0] for answer in answers)
    posted = [await browser.post(f"/i/{one}") for one in (token, UNKNOWN)]
    assert posted[0].content == posted[1].content == answers[0][2]
    assert safe(posted[0])


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "POST"])
async def test_other_methods_are_refused(site: Site, browser: httpx.AsyncClient, method: str) -> None:
    token = await site.token(PDF)
    answers = [await browser.request(method, f"/i/{token}/invoice.pdf")]
    assert answers[0].status_code == 405
    for path in ("/i/", "/i", f"/i/{token}/", f"/i/{token}/other.pdf", f"/i/{token}/invoice.pdf/"):
        answers.append(await browser.get(path))
        assert answers[-1].status_code == 404
    assert all(map(safe, answers))


# --- when it is over -------------------------------------------------------------------------------------------------


async def test_an_expired_link_shows_nothing_of_the_invoice(site: Site, browser: httpx.AsyncClient) -> None:
    token = await site.token(PDF)
    site.clock.advance(80 * 86400)
    answer = await browser.get(f"/i/{token}", headers={"accept-language": "en-GB,en;q=0.9,nb;q=0.8"})
    assert answer.status_code == 200
    assert safe(answer)
    assert "This link has expired" in answer.text
    assert '<form method="post">' in answer.text
    for hidden in ("A1B2C", "345,50", "0012345678903"):
        assert hidden not in answer.text
    document = await browser.get(f"/i/{token}/invoice.pdf")
    assert document.status_code == 303
    assert document.headers["location"] == f"../{token}"


async def test_a_new_link_is_asked_for_once_and_the_answer_tells_nothing(
    site: Site, browser: httpx.AsyncClient
) -> None:
    token = await site.token(PDF)
    site.clock.advance(80 * 86400)
    first = await browser.post(f"/i/{token}")
    again = await browser.post(f"/i/{token}")
    assert (first.status_code, first.content) == (200, again.content)
    assert first.headers["content-security-policy"] == again.headers["content-security-policy"]
    (delivery,) = await site.store.find(site.delivery.id)
    assert (delivery.outcome, delivery.round) == (Outcome.OPEN, 1)


async def test_a_link_that_works_is_shown_instead_of_renewed(site: Site, browser: httpx.AsyncClient) -> None:
    token = await site.token(PDF)
    answer = await browser.post(f"/i/{token}")
    assert (answer.status_code, answer.headers["location"]) == (303, token)
    assert (await site.store.find(site.delivery.id))[0].outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("asked", "found"),
    [("en", "en"), ("fr-FR,en;q=0.5", "en"), ("no", "nb"), ("nb-NO", "nb"), ("fr", "nb"), ("", "nb"), (";;,,*", "nb")],
)
async def test_what_has_no_reader_is_in_the_browsers_language(
    browser: httpx.AsyncClient, asked: str, found: str
) -> None:
    answer = await browser.get(f"/i/{UNKNOWN}", headers={"accept-language": asked})
    assert f'<html lang="{found}"' in answer.text
    assert answer.headers["vary"] == "accept-language"


# --- limits, trouble, traces -----------------------------------------------------------------------------------------


async def test_one_link_is_not_asked_for_without_end(site: Site, browser: httpx.AsyncClient) -> None:
    token = await site.token(PDF)
    answers = [(await browser.get(f"/i/{token}")).status_code for _ in range(31)]
    assert answers == [200] * 30 + [429]
    refused = await browser.get(f"/i/{token}/invoice.pdf")
    assert refused.status_code == 429
    assert "Siden er ikke tilgjengelig akkurat nå" in refused.text
    assert "A1B2C" not in refused.text
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    assert safe(refused)
    site.clock.advance(int(refused.headers["retry-after"]))
    assert (await browser.get(f"/i/{token}/invoice.pdf")).status_code == 200


async def test_who_reads_slowly_holds_few_documents(site: Site) -> None:
    document = PDF * 9000
    pages = invoice_pages(site.links, open_pages(brand=BRAND, templates_dir=None, locale="nb"), Metrics(), site.clock)
    scope = {"type": "http", "method": "GET", "headers": [], "path_params": {"token": await site.token(document)}}
    read: list[dict[str, Any]] = []

    async def reading(message: Any) -> None:
        read.append(message)

    async def gone(_message: Any) -> None:
        raise OSError

    async def nothing() -> Any:
        raise AssertionError

    held = [await pages.document(Asked(scope)) for _ in range(6)]
    assert [answer.status_code for answer in held] == [200] * 6
    assert (await pages.document(Asked(scope))).status_code == 429
    assert (await pages.show(Asked(scope))).status_code == 200
    await held[0](scope, nothing, reading)
    with pytest.raises(OSError):  # noqa: PT011 - of its own making
        await held[1](scope, nothing, gone)
    bodies = [message["body"] for message in read[1:]]
    assert b"".join(bodies) == document
    assert max(map(len, bodies)) <= 65536
    again = [(await pages.document(Asked(scope))).status_code for _ in range(3)]
    assert again == [200, 200, 429]


async def test_one_client_does_not_try_tokens_without_end(site: Site, browser: httpx.AsyncClient) -> None:
    guesses = [f"{n:022}"[::-1] for n in range(125)]
    told = {"x-forwarded-for": "9.9.9.9"}
    answers = [(await browser.get(f"/i/{guess}", headers=told)).status_code for guess in guesses]
    assert answers[:120] == [404] * 120
    assert 429 in answers[120:]
    # Nor by naming others: only what the proxy beside us put last counts.
    posed = await browser.get(f"/i/{UNKNOWN}", headers={"x-forwarded-for": "1.2.3.4, 9.9.9.9"})
    assert posed.status_code == 429
    assert (await browser.get(f"/i/{UNKNOWN}", headers={"x-forwarded-for": "8.8.8.8"})).status_code == 404
    network = [
        (await browser.get(f"/i/{guess}", headers={"x-forwarded-for": f"2001:db8::{n:x}"})).status_code
        for n, guess in enumerate(guesses)
    ]
    assert 429 in network


@pytest.mark.parametrize(
    ("peer", "told", "client"),
    [
        ("8.8.8.8", ["9.9.9.9"], "8.8.8.8"),  # nobody between: what it says of itself is not asked
        ("10.0.0.7", ["1.2.3.4, 9.9.9.9"], "9.9.9.9"),
        ("10.0.0.7", ["1.2.3.4", "9.9.9.9"], "9.9.9.9"),  # a proxy that adds a line of its own
        ("10.0.0.7", ["1.2.3.4, 9.9.9.9, 192.168.0.4"], "9.9.9.9"),  # two proxies
        ("100.64.0.9", ["9.9.9.9:51234"], "9.9.9.9"),
        ("::ffff:8.8.8.8", ["9.9.9.9"], "8.8.8.8"),  # serve --host ::
        ("::ffff:10.0.0.7", ["9.9.9.9"], "9.9.9.9"),
        ("10.0.0.7", ["[2a00:1450:1:2:3::4]:443"], "2a00:1450:1:2::/64"),
        ("127.0.0.1", ["10.1.2.3"], "10.1.2.3"),  # a network of one's own
        ("127.0.0.1", ["unknown"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("a socket", [], "None"),
    ],
)
def test_whose_request_it_is(peer: str, told: list[str], client: str) -> None:
    headers = [(b"x-forwarded-for", line.encode()) for line in told]
    assert _client(Asked({"type": "http", "client": (peer, 1), "headers": headers})) == client


def test_limits_forget_those_seen_longest_ago() -> None:
    clock = MovedClock()
    limit = Limit(clock=clock, burst=1, per_second=0.1, most=3)
    assert [limit.wait(key) for key in "abc"] == [0, 0, 0]
    assert 9 < limit.wait("a") <= 10
    assert limit.wait("d") == 0
    assert len(limit._left) == 3
    assert limit.wait("b") == 0  # forgotten, for `a` was seen later
    clock.advance(10)
    assert limit.wait("a") == 0


class Unreachable:
    """A vault that nobody answers for."""

    async def put(self, name: str, sealed: bytes) -> None:
        raise TransientFailure("no answer")

    async def get(self, name: str) -> bytes | None:
        raise TransientFailure("no answer")

    async def delete(self, name: str) -> None:
        raise TransientFailure("no answer")

    async def names(self, account_id: str, *, after: str | None = None) -> tuple[str, ...]:
        raise TransientFailure("no answer")


async def test_a_vault_out_of_reach_is_for_now(site: Site) -> None:
    token = await site.token(PDF)
    links = replace(site.links, vault=Unreachable())
    metrics = Metrics()
    pages = invoice_pages(links, open_pages(brand=BRAND, templates_dir=None, locale="nb"), metrics, site.clock)
    with listen() as sock:
        async with (
            serving(application(pages.routes(), lambda _: None), sock),
            httpx.AsyncClient(base_url=origin(sock), trust_env=False) as browser,
        ):
            assert (await browser.get(f"/i/{token}")).status_code == 200
            with capture_logs() as logs:
                answer = await browser.get(f"/i/{token}/invoice.pdf")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert "Siden er ikke tilgjengelig akkurat nå" in answer.text
    assert safe(answer)
    (said,) = [line for line in logs if line["event"] == "alarm.document_unavailable"]
    assert (said["delivery_id"], said["reason"]) == (site.delivery.id, "no answer")
    assert 'merchant_delivery_alarms_total{alarm="document_unavailable"} 1.0' in metrics.render(None).decode()


@pytest.mark.parametrize("what", ["lost", "damaged"])
async def test_who_runs_it_is_told_that_a_document_is_not_there(
    site: Site, browser: httpx.AsyncClient, what: str
) -> None:
    token = await site.token(PDF)
    (link,) = await site.store.links_of(site.delivery.id)
    await site.links.vault.delete(link.document_name)
    if what == "damaged":
        await site.links.vault.put(link.document_name, bytes(100))
    with capture_logs() as logs:
        answer = await browser.get(f"/i/{token}/invoice.pdf")
    assert (answer.status_code, safe(answer)) == (404, True)
    assert "Siden finnes ikke" in answer.text
    assert [line["event"] for line in logs] == ["alarm.document_unavailable"]
    assert token not in repr(logs)


@pytest.mark.usefixtures("record_url")  # which takes the log down again
async def test_no_log_holds_a_token(site: Site, browser: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    configure("json", "debug")
    token = await site.token(PDF)
    for path in (f"/i/{token}", f"/i/{token}/invoice.pdf", f"/i/{token}/nothing"):
        await browser.get(path)
    await browser.post(f"/i/{token}")
    site.clock.advance(80 * 86400)
    await browser.post(f"/i/{token}")
    logging.getLogger("uvicorn.access").info("to show that it is not kept %s", token)
    said = capsys.readouterr()
    assert token not in said.out + said.err


async def test_under_a_path_of_its_host(sqlite_url: str) -> None:
    async with open_site(sqlite_url, prefix="/delivery") as site, httpx.AsyncClient(trust_env=False) as browser:
        token = await site.token(PDF)
        page = await browser.get(f"{site.url}/i/{token}")
        linked = page.url.join(f"{token}/invoice.pdf")
        assert (await browser.get(linked)).content == PDF


# --- how it is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["#1f3a5f", "#ffe600", "#ffffff", "#000000", "#e4002b", "#7f7f7f"])
def test_any_brand_can_be_read(color: str) -> None:
    pages = open_pages(brand=replace(BRAND, color=color), templates_dir=None, locale="nb")
    style = pages.missing(asked=None)
    button = style.partition(".button {")[2].partition("}")[0]
    ground, text = (button.partition(f"{name}: ")[2][:7] for name in ("background", "; color"))
    assert contrast(ground, text) >= 4.5
    assert contrast(style.partition("--ink: ")[2][:7], "#ffffff") >= 4.5


def test_what_a_customer_wrote_stays_text() -> None:
    brand = Brand(name="A & <b>B</b>", logo=png(300, 100))
    pages = open_pages(brand=brand, templates_dir=None, locale="en")
    html = pages.missing(asked="en")
    assert "A &amp; &lt;b&gt;B&lt;/b&gt;" in html
    assert 'src="data:image/png;base64,' in html


def test_a_merchants_own_page_is_tried_at_start(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "expired.html").write_text("{{ no_such_thing }}")
    with pytest.raises(TemplateError, match="no_such_thing"):
        open_pages(brand=BRAND, templates_dir=tmp_path, locale="nb")
    (tmp_path / "pages" / "expired.html").write_text("{% if %}")
    with pytest.raises(TemplateError, match="line 1"):
        open_pages(brand=BRAND, templates_dir=tmp_path, locale="nb")
