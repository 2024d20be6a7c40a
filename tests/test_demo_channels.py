"""The demo over all channels with the real service: mails, texts, the ERP, falling back, reports, pages."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx2 as httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.app import demo_service
from service.clock import MovableClock
from service.delivery import Clock
from service.serving import listen, origin, serving
from service.simulator.api import open_provider
from service.simulator.demo import Keys, channels_for, run_demo, settings_for
from service.simulator.erp import ErpServer, open_erp
from service.simulator.faults import Faults
from service.simulator.mail import MailServer, open_mail_server
from service.simulator.pages import site
from service.simulator.sales import Country
from service.simulator.sms import SmsServer, open_sms_server
from service.simulator.sms_wire import Kind, Login
from service.simulator.stage import Service, Stage
from service.simulator.ways import PROVIDERS, WAYS


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A visitor of the demo, and what is behind its pages."""

    stage: Stage
    http: httpx.AsyncClient

    async def post(self, path: str, **form: str) -> httpx.Response:
        return await self.http.post(path, data=form)

    async def create(self, way: str, country: str = "NO") -> str:
        """Fill in the form; return the transaction's id."""
        made = await self.post("/demo/create", buyer="business", country=country, way=way)
        assert (made.status_code, made.headers["location"]) == (303, "/")
        return list(self.stage.running.provider.transactions)[-1]

    async def until(self, transaction_id: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Look until the record shows it, and return the record."""
        record: dict[str, Any] = {}
        async with asyncio.timeout(30):
            while not (record and true(record)):
                await asyncio.sleep(0.05)
                record = await self.stage.record(transaction_id) or {}
        return record

    async def closed(self, transaction_id: str, outcome: str = "completed") -> dict[str, Any]:
        return await self.until(transaction_id, lambda record: record["outcome"] == outcome)

    async def page(self, path: str) -> str:
        answer = await self.http.get(path)
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        return answer.text


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    """The demo as it is run, but that no report comes by itself."""
    clock, random, sock, keys = MovableClock(), Random(1), listen(), Keys()
    faults, url = Faults(random), origin(sock)
    login = Login(password=keys.sms, signing=keys.sms, gate_url=f"{url}/receipts/sms-link?secret={keys.sms}")
    async with AsyncExitStack() as stack:
        mail = await stack.enter_async_context(open_mail_server(MailServer(clock=clock, random=random, faults=faults)))
        sms = await stack.enter_async_context(open_sms_server(SmsServer(clock=clock, login=login, faults=faults)))
        erp = await stack.enter_async_context(open_erp(ErpServer(clock=clock, secret=keys.erp, faults=faults)))
        running = await stack.enter_async_context(open_provider(clock=clock, faults=faults))
        folder = str(tmp_path)
        settings = settings_for(folder, url, running, mail) | channels_for(folder, sms, erp, keys)
        service = await stack.enter_async_context(demo_service(settings, clock))
        stage = Stage(
            url=url,
            running=running,
            mail=mail,
            sms=sms,
            erp=erp,
            service=service,
            clock=clock,
            random=random,
            told=lambda _number, _what: None,
            esp_key=keys.esp,
        )
        mail.arrived, sms.arrived, erp.arrived = stage.arrived, stage.texted, stage.posted
        await stack.enter_async_context(serving(site(stage), sock))
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, base_url=url, timeout=60))
        work = asyncio.create_task(service.run())
        yield Visit(stage=stage, http=http)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


def sent(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(send["channel"], send["outcome"]) for send in record["sends"]]


async def test_the_script_shows_every_way_and_ends() -> None:
    lines: list[str] = []
    status = await run_demo(port=None, exit_after=True, open_service=demo_service, echo=lines.append)
    told = "\n".join(lines)
    assert status == 0, told
    assert told.count("invoice created") == told.count("completed: delivered, captured") == len(WAYS)
    assert told.count("mail delivered") == 1
    assert told.count("posted to the ERP") == 1
    assert told.count("SMS taken by link") == 2
    assert told.count("SMS reported as delivered by link: the service answered 200") == 2
    assert told.count("delivered by sms-link, after email had not worked") == 1
    assert told.count("the record says of it: confirmed by report") == 2


async def test_the_script_does_not_end_well_when_the_service_is_deaf_to_reports() -> None:
    @asynccontextmanager
    async def deaf(env: Mapping[str, str], clock: Clock) -> AsyncIterator[Service]:
        async with demo_service(env, clock) as service:
            inner = service.asgi

            async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
                reported = scope["type"] == "http" and scope["path"].startswith("/receipts/")
                await (Response(status_code=404) if reported else inner)(scope, receive, send)

            service.asgi = asgi
            yield service

    lines: list[str] = []
    assert await run_demo(port=None, exit_after=True, open_service=deaf, echo=lines.append, ways=("sms",)) == 1
    assert "the service answered 404" in "\n".join(lines)
    assert "the record says of it: accepted by relay" in lines[-2]
    assert lines[-1] == "\nIt did not work: a delivery ended otherwise, as its line says."


async def test_an_invoice_goes_by_mail_by_sms_and_to_the_erp(visit: Visit) -> None:
    by_mail, by_sms, to_erp = [await visit.create(way) for way in ("email", "sms", "erp")]
    assert sent(await visit.closed(by_mail)) == [("email", "accepted")]
    assert sent(await visit.closed(by_sms)) == [("sms-link", "accepted")]
    assert sent(await visit.closed(to_erp)) == [("http", "accepted")]
    (posted,) = visit.stage.erp.inbox
    home = await visit.page("/")
    for link in ('href="/inbox/1"', 'href="/sms#text-1"', 'href="/erp#posted-1"'):
        assert home.count(link) == 1
    for way, words in WAYS.items():
        assert f'<option value="{way}">{words}</option>' in home
    page = await visit.page("/erp")
    assert posted.invoice_number in page
    assert "came 1\u00d7" in page
    assert f'Idempotency-Key <span class="code">{posted.key}</span>' in page
    pdf = await visit.http.get("/erp/1/invoice.pdf")
    assert (pdf.headers["content-type"], pdf.content) == ("application/pdf", posted.document)
    assert pdf.content.startswith(b"%PDF-")
    assert (await visit.http.get("/erp/2/invoice.pdf")).status_code == 404
    for part in ("/demo/texts", "/demo/posted"):
        assert "<html" not in await visit.page(part)


async def test_a_refused_mail_falls_back_and_its_link_opens(visit: Visit) -> None:
    record = await visit.closed(await visit.create("refused"))
    assert sent(record) == [("email", "refused"), ("sms-link", "accepted")]
    assert record["reason"] == "delivered by sms-link, after email had not worked"
    assert visit.stage.mail.inbox == []
    assert visit.stage.faults.active() == ()
    page = await visit.page("/sms")
    found = re.search(r'<a href="([^"]+)" target="_blank" rel="noreferrer" data-phone>', page)
    assert found is not None
    assert found[1].startswith(f"{visit.stage.url}/i/")
    opened = await visit.http.get(found[1])
    assert opened.status_code == 200
    assert record["invoice_number"] in opened.text
    assert "frame-ancestors 'none'" in opened.headers["content-security-policy"]
    pdf = await visit.http.get(f"{found[1]}/invoice.pdf")
    assert pdf.content == visit.stage.running.provider.document(record["transaction_id"])
    shown = await visit.page(f"/record/{record['transaction_id']}")
    assert '<span class="badge refused">refused</span>' in shown
    assert "Each send" in shown


@pytest.mark.parametrize(("country", "kind"), PROVIDERS.items())
async def test_each_country_has_its_sms_provider_and_a_report_confirms(
    visit: Visit, country: Country, kind: Kind
) -> None:
    transaction_id = await visit.create("sms", country)
    record = await visit.closed(transaction_id)
    assert record["delivery_proof"] == "accepted_by_relay"
    assert [text.kind for text in visit.stage.sms.inbox] == [kind]
    assert "Not reported yet." in await visit.page("/sms")
    told = await visit.post("/sms/1/report", fate="delivered")
    assert (told.status_code, told.headers["location"]) == (303, "/sms")
    record = await visit.until(transaction_id, lambda found: found["delivery_proof"] == "confirmed_by_report")
    assert record["sends"][0]["reported_at"] is not None
    assert "Reported as delivered." in await visit.page("/sms")
    assert f"sms-{kind}: confirmed by report" in await visit.page("/demo/invoices")


async def test_a_text_reported_as_failed_reopens_the_delivery(visit: Visit) -> None:
    transaction_id = await visit.create("sms")
    await visit.closed(transaction_id)
    assert (await visit.post("/sms/1/report", fate="failed")).status_code == 303
    record = await visit.closed(transaction_id, "failed")
    assert sent(record) == [("sms-link", "bounced")]
    assert (await visit.post("/sms/1/report", fate="odd")).status_code == 404
    assert (await visit.post("/sms/9/report", fate="failed")).status_code == 404


async def test_a_bounced_mail_falls_back(visit: Visit) -> None:
    transaction_id = await visit.create("email")
    await visit.closed(transaction_id)
    assert "Bounce</button>" in await visit.page("/inbox/1")
    told = await visit.post("/inbox/1/bounce")
    assert (told.status_code, told.headers["location"]) == (303, "/inbox/1")
    record = await visit.until(
        transaction_id, lambda found: len(found["sends"]) > 1 and found["outcome"] == "completed"
    )
    assert sent(record) == [("email", "bounced"), ("sms-link", "accepted")]
    assert '<span class="badge failed">bounced</span>' in await visit.page("/inbox/1")
    assert (await visit.post("/inbox/2/bounce")).status_code == 404
    visit.stage.esp_key = "another key"
    forged = await visit.post("/inbox/1/bounce")
    assert forged.status_code == 502
    assert "The service answered 401" in forged.text


async def test_faults_of_sms_and_erp_stand_beside_the_others(visit: Visit) -> None:
    home = await visit.page("/")
    for words in ('<optgroup label="SMS">', '<optgroup label="ERP">', "sms-402: the account has no credit"):
        assert words in home
    for name in ("sms-bad-number", "erp-422"):
        form = {"name": name, "chance": "100", "count": "1", "where": ""}
        assert (await visit.post("/demo/faults/on", **form)).status_code == 303
    refused, unbooked = await visit.create("sms"), await visit.create("erp")
    assert sent(await visit.closed(refused, "failed")) == [("sms-link", "refused")]
    assert sent(await visit.closed(unbooked, "failed")) == [("http", "refused")]
    assert dict(visit.stage.faults.struck) == {"sms-bad-number": 1, "erp-422": 1}
    assert (visit.stage.sms.inbox, visit.stage.erp.inbox) == ([], [])


@pytest.mark.parametrize(
    ("fault", "reported"),
    [(None, ["delivered"]), ("sms-report-failed", ["failed"]), ("sms-report-lost", None)],
)
async def test_a_text_is_reported_by_itself(visit: Visit, fault: str | None, reported: list[str] | None) -> None:
    transaction_id = await visit.create("sms")
    await visit.closed(transaction_id)
    if fault is not None:
        visit.stage.faults.on(fault, count=1)
    (text,) = visit.stage.sms.inbox
    await visit.stage.report_by_itself(text)
    assert visit.stage.sms.reported.get(text.number) == reported
    await visit.stage.report_by_itself(text)
    assert visit.stage.sms.reported.get(text.number) == (reported or ["delivered"])


async def test_only_this_site_may_report_and_bounce(visit: Visit) -> None:
    await visit.closed(await visit.create("email"))
    await visit.closed(await visit.create("sms"))
    away = {"sec-fetch-site": "cross-site"}
    for path in ("/inbox/1/bounce", "/sms/1/report"):
        answer = await visit.http.post(path, data={"fate": "failed"}, headers=away)
        assert answer.status_code == 403
    assert visit.stage.sms.reported == {}
    assert visit.stage.bounced == set()


async def test_the_preview_has_every_kind_in_every_language(visit: Visit) -> None:
    page = await visit.page("/preview")
    assert 'src="/preview/nb-mail-invoice.html"' in page
    for title in ("Mail: link", "Mail: copy", "Mail: cancelled", "Mail: notice", "SMS: invoice", "Invoice page"):
        assert f">{title}</a>" in page
    links = set(re.findall(r'href="(\?show=[^"]+)"', page))
    assert {f"?show={tag}-mail-invoice.html" for tag in ("nb", "nn", "sv", "fi", "da", "en")} <= links
    for link in links:
        shown = await visit.page(f"/preview{link}")
        assert shown.count('aria-current="page"') == 3  # the site's page, the kind, the language
    mail = await visit.http.get("/preview/fi-mail-invoice.html")
    assert 'src="data:image/png;base64,' in mail.text
    assert "script-src" not in mail.headers["content-security-policy"]
    assert "Lasku" in await visit.page("/preview?show=fi-sms-invoice.txt")
    for name in ("none.html", "nb-mail-invoice.eml"):
        assert (await visit.http.get(f"/preview/{name}")).status_code == 404
