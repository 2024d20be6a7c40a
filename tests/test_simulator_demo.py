import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import aiosmtplib
import httpx2 as httpx
import pytest
from markupsafe import escape as markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.clock import MovableClock
from service.delivery import Clock
from service.serving import listen, origin
from service.simulator.api import open_provider
from service.simulator.demo import run_demo
from service.simulator.erp import ErpServer, Posted
from service.simulator.faults import KINDS, Fault
from service.simulator.mail import Mail, MailServer, open_mail_server
from service.simulator.pages import site
from service.simulator.sms import SmsServer
from service.simulator.sms_wire import Asked
from service.simulator.stage import Stage, number_of
from service.simulator.ways import Way
from tests.fakes import MovedClock

MAIL: tuple[Way, ...] = ("email",)
ODD = "<script>alert('x')</script> \"&{{ 7*7 }} 🎉"
MESSAGE = """\
From: Shop <shop@shop.example>
To: ola@nordmann.example
Subject: Faktura A1B2C-000001 <b>&
Date: Mon, 23 Nov 2026 10:00:00 +0000
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=M

--M
Content-Type: multipart/alternative; boundary=A

--A
Content-Type: text/plain; charset=utf-8

Hei <i>Ola</i>
--A
Content-Type: multipart/related; boundary=R

--R
Content-Type: text/html; charset=utf-8

<p>Hei</p><img src="cid:logo@shop">
--R
Content-Type: image/png
Content-ID: <logo@shop>
Content-Transfer-Encoding: base64

iVBORw==
--R--
--A--
--M
Content-Type: application/pdf
Content-Disposition: attachment; filename="../A1B2C-000001 \\"x.pdf"
Content-Transfer-Encoding: base64

JVBERi0=
--M
Content-Type: text/html
Content-Disposition: attachment; filename="page.html"

<script>1</script>
--M--
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """One file of a preview."""

    name: str
    content: bytes
    remark: str = "a remark"


class SmallService:
    """Does what the service is for, once and without care."""

    def __init__(self, env: Mapping[str, str], *, works: bool = True) -> None:
        self.env = {key.removeprefix("DELIVERY_"): value for key, value in env.items()}
        self.works = works
        self.records: dict[str, dict[str, Any]] = {}
        self.known: list[dict[str, Any]] = []
        self.previewed: tuple[Preview, ...] = ()
        self.called: asyncio.Queue[str] = asyncio.Queue()
        self.asgi = Starlette(routes=[Route("/callback", self.callback), Route("/livez", self.livez)])

    async def callback(self, request: Request) -> Response:
        assert request.headers["dintero-signature"].startswith("t=")
        transaction_id = request.query_params["transaction_id"]
        self.records.setdefault(transaction_id, {"transaction_id": transaction_id, "outcome": "open", "progress": []})
        self.called.put_nowait(transaction_id)
        return JSONResponse({})

    async def livez(self, _: Request) -> Response:
        return JSONResponse({})

    async def record(self, transaction_id: str) -> str | None:
        found = self.records.get(transaction_id)
        return None if found is None else json.dumps(found)

    async def groups(self) -> str:
        return json.dumps(self.known)

    def previews(self) -> tuple[Preview, ...]:
        return self.previewed

    async def run(self) -> None:
        while True:
            transaction_id = await self.called.get()
            if self.works and self.records[transaction_id]["outcome"] == "open":
                await self.deliver(transaction_id)

    async def deliver(self, transaction_id: str) -> None:
        env, account = self.env, self.env["ACCOUNT_ID"]
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            token = await http.post(
                f"{env['API_URL']}/accounts/{account}/auth/token",
                auth=(env["CLIENT_ID"], env["CLIENT_SECRET"]),
                json={"grant_type": "client_credentials", "audience": f"{env['API_URL']}/accounts/{account}"},
            )
            headers = {"authorization": f"Bearer {token.json()['access_token']}"}
            url = f"{env['CHECKOUT_URL']}/transactions/{transaction_id}"
            transaction = (await http.get(url, headers=headers)).json()
            relay = urlsplit(env["SMTP_URL"])
            content = f"Subject: {transaction['metadata']['kravia:invoice_number']}\r\n\r\nhei\r\n"
            await aiosmtplib.send(
                content.encode(),
                sender="shop@shop.example",
                recipients=[transaction["billing_address"]["email"]],
                hostname=relay.hostname,
                port=relay.port,
                username=relay.username,
                password=relay.password,
                start_tls=False,
            )
            answer = await http.post(f"{url}/capture", headers=headers, json={"amount": transaction["amount"]})
            assert answer.status_code == 200
        self.records[transaction_id] |= {"outcome": "completed", "progress": ["delivered", "captured"], "history": []}


Opened = list[SmallService]


def opener(opened: Opened, *, works: bool = True) -> Callable[[Mapping[str, str], Clock], Any]:
    @asynccontextmanager
    async def open_service(env: Mapping[str, str], _: Clock) -> AsyncIterator[SmallService]:
        service = SmallService(env, works=works)
        opened.append(service)
        yield service

    return open_service


async def test_the_demo_delivers_and_leaves() -> None:
    opened: Opened = []
    lines: list[str] = []
    status = await run_demo(port=None, ways=MAIL, exit_after=True, open_service=opener(opened), echo=lines.append)
    told = "\n".join(lines)
    assert status == 0, told
    assert "captured" in lines[-1]
    for words in ("invoice created", "callback signed and sent: the service answered 200", "250 2.0.0 Ok", "completed"):
        assert words in told
    env = opened[0].env
    assert env["SIGNATURE_SECRETS"] not in told
    assert env["CLIENT_SECRET"] not in told
    assert not Path(env["DATABASE_URL"].removeprefix("sqlite:///")).parent.exists()


async def test_the_demo_admits_that_nothing_came() -> None:
    lines: list[str] = []
    service = opener([], works=False)
    demo = run_demo(port=None, ways=MAIL, exit_after=True, open_service=service, echo=lines.append, patience=0.3)
    status = await demo
    assert status == 1
    assert "still open after 0.3 seconds" in lines[-1]
    assert "captured" not in "\n".join(lines)


async def test_a_taken_port_given_by_hand_is_an_error() -> None:
    taken = listen()
    port = taken.getsockname()[1]
    lines: list[str] = []
    status = await run_demo(port=port, ways=MAIL, exit_after=True, open_service=opener([]), echo=lines.append)
    taken.close()
    assert status == 1
    assert str(port) in lines[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_ends_the_demo(number: signal.Signals) -> None:
    lines: list[str] = []

    def echo(line: str) -> None:
        lines.append(line)
        if "Ctrl-C" in line:
            os.kill(os.getpid(), number)

    async with asyncio.timeout(20):
        assert await run_demo(port=None, ways=MAIL, exit_after=False, open_service=opener([]), echo=echo) == 0
    assert "Stopping" in lines[-1]


async def test_ctrl_c_before_the_invoice_is_through_is_no_success() -> None:
    def echo(line: str) -> None:
        if "the service answered" in line:
            os.kill(os.getpid(), signal.SIGINT)

    assert await run_demo(port=None, ways=MAIL, exit_after=True, open_service=opener([], works=False), echo=echo) == 1


async def test_a_service_that_breaks_is_not_hidden() -> None:
    class Broken(SmallService):
        async def run(self) -> None:
            raise LookupError("broken")

    @asynccontextmanager
    async def open_broken(env: Mapping[str, str], _: Clock) -> AsyncIterator[SmallService]:
        yield Broken(env)

    with pytest.raises(ExceptionGroup) as caught:
        await run_demo(port=None, ways=MAIL, exit_after=True, open_service=open_broken, echo=lambda _: None)
    assert caught.group_contains(LookupError)


# --- the pages -------------------------------------------------------------------------------------------------------


class Visit:
    """A visitor of the demo's site, over a service that knows what it is told to know."""

    def __init__(self, stage: Stage, service: SmallService, http: httpx.AsyncClient) -> None:
        self.stage = stage
        self.service = service
        self.http = http

    def receive(self, content: str = MESSAGE) -> None:
        mail = Mail(
            number=len(self.stage.letters) + 1,
            sender="shop@shop.example",
            recipients=("ola@nordmann.example",),
            content=content.replace("\n", "\r\n").encode(),
            received_at=self.stage.mail.clock.now(),
            queue_id="4ABC",
        )
        self.stage.arrived(mail)


@pytest.fixture
async def visit() -> AsyncIterator[Visit]:
    clock = MovedClock()
    server = MailServer(clock=clock, random=Random(1))
    sock = listen()
    url = origin(sock)
    sock.close()
    async with open_mail_server(server), open_provider(clock=clock, callback_schedule=(0,)) as running:
        service = SmallService({})
        stage = Stage(
            url=url,
            running=running,
            mail=server,
            sms=SmsServer(clock=clock, faults=running.provider.faults),
            erp=ErpServer(clock=clock, secret="a-secret", faults=running.provider.faults),
            service=service,
            clock=clock,
            random=Random(2),
            told=lambda _number, _what: None,
        )
        transport = httpx.ASGITransport(app=site(stage))
        async with httpx.AsyncClient(transport=transport, base_url="http://demo.example") as http:
            yield Visit(stage, service, http)


async def test_every_page_answers_and_escapes(visit: Visit) -> None:
    transaction_id = visit.stage.create()
    provider = visit.stage.running.provider
    provider.edit(transaction_id, lambda document: document["billing_address"].update(business_name=ODD, country=ODD))
    visit.receive()
    visit.receive(f"Subject: {ODD}\nFrom: {ODD}\n\n{ODD}\n")
    visit.service.records[transaction_id] = {
        "transaction_id": transaction_id,
        "invoice_number": ODD,
        "outcome": "failed",
        "reason": ODD,
        "progress": [],
        "amount": 5,
        "history": [
            {"at": ODD, "step": "deliver", "result": "refused", "channel": None, "detail": ODD, "message_id": ODD}
        ],
        "sends": [
            {"channel": ODD, "purpose": ODD, "recipient": ODD, "outcome": ODD, "proof": ODD, "reported_at": ODD}
            | {"answer": ODD}
        ],
    }
    stage = visit.stage
    stage.sms.take("link", Asked(sender=ODD, to=ODD, text=ODD, reference=None, callback=None))
    stage.erp.came["k"] = 1
    stage.erp.refused.append(ODD)
    stage.erp.inbox.append(
        Posted(
            number=1,
            key="k",
            kind=ODD,
            invoice_number=ODD,
            buyer=ODD,
            amount=500,
            currency="NOK",
            due_date=ODD,
            document=None,
            link=None,
            content=ODD,
            received_at=stage.clock.now(),
        )
    )
    visit.service.previewed = (
        Preview(name="nb-sms-invoice.txt", content=ODD.encode(), remark=ODD),
        Preview(name="nb-page.html", content=b"<p>page</p>"),
    )
    paths = ["/sms", "/demo/texts", "/erp", "/demo/posted", "/preview", "/preview?show=nb-page.html"]
    paths += ["/", "/demo/invoices", "/inbox", "/demo/letters", "/inbox/1", "/inbox/2", f"/record/{transaction_id}"]
    paths += ["/inbox/1?view=text", "/inbox/1?view=source", "/inbox/2?view=html", "/inbox/1?view=odd"]
    for path in paths:
        answer = await visit.http.get(path)
        assert answer.status_code == 200, path
        assert "<script>alert" not in answer.text, path
        assert "<i>Ola" not in answer.text, path
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
        assert answer.headers["x-content-type-options"] == "nosniff", path
    home = (await visit.http.get("/")).text
    assert "&lt;script&gt;alert" in home
    assert "{{ 7*7 }}" in home
    assert 'href="/inbox/1"' in home
    assert "failed" in home


async def test_a_mail_is_shown_with_its_pictures_and_files(visit: Visit) -> None:
    visit.receive()
    page = (await visit.http.get("/inbox/1")).text
    assert 'sandbox="allow-same-origin allow-popups"' in page
    assert "A1B2C-000001 &lt;b&gt;&amp;" in page
    html = await visit.http.get("/inbox/1/html")
    assert '<img src="data:image/png;base64,iVBORw==">' in html.text
    assert "script-src" not in html.headers["content-security-policy"]
    assert html.headers["content-security-policy"].startswith("default-src 'none'; img-src data:;")
    pdf = await visit.http.get("/inbox/1/attachment/1")
    assert (pdf.content, pdf.headers["content-type"]) == (b"%PDF-", "application/pdf")
    assert pdf.headers["content-disposition"] == 'inline; filename="A1B2C-000001-x.pdf"'
    other = await visit.http.get("/inbox/1/attachment/2")
    assert other.headers["content-type"] == "application/octet-stream"
    assert other.headers["content-disposition"].startswith("attachment")
    source = await visit.http.get("/inbox/1/source")
    assert source.content == visit.stage.letters[0].mail.content
    for path in ("/inbox/0", "/inbox/2", "/inbox/1/attachment/3", "/inbox/1/attachment/0", "/record/none", "/demo/x"):
        assert (await visit.http.get(path)).status_code == 404, path


@pytest.mark.parametrize("buyer", ["business", "consumer"])
@pytest.mark.parametrize("country", ["NO", "SE", "FI", "DK", "DE"])
async def test_an_invoice_can_be_created_paid_and_voided(visit: Visit, buyer: str, country: str) -> None:
    form = {"buyer": buyer, "country": country, "way": "email"}
    provider = visit.stage.running.provider
    for _ in range(2):
        assert (await visit.http.post("/demo/create", data=form)).status_code == 303
    first, second = provider.transactions.values()
    assert first["billing_address"]["country"] == country
    assert first["payment_product_type"] == ("kravia.invoice_b2b" if buyer == "business" else "kravia.invoice_b2c")
    assert first["amount"] == sum(item["amount"] for item in first["items"])
    assert first["billing_address"]["email"].endswith(".example")
    refused = await visit.http.post(f"/demo/pay/{first['id']}")
    assert (refused.status_code, first["status"]) == (400, "AUTHORIZED")
    provider.capture(first["id"], {"amount": first["amount"]})
    assert (await visit.http.post(f"/demo/pay/{first['id']}")).status_code == 303
    assert (await visit.http.post(f"/demo/void/{second['id']}")).status_code == 303
    assert (first["status"], second["status"]) == ("CAPTURED", "AUTHORIZATION_VOIDED")
    assert (await visit.http.post("/demo/void/none")).status_code == 404
    assert [number_of(transaction) for transaction in (first, second)] == ["A1B2C-000001", "A1B2C-000002"]


async def test_only_this_site_may_act(visit: Visit) -> None:
    form = {"buyer": "business", "country": "NO", "way": "email"}
    away = await visit.http.post("/demo/create", data=form, headers={"sec-fetch-site": "cross-site"})
    assert away.status_code == 403
    assert (await visit.http.post("/demo/create", data=form | {"country": "XX"})).status_code == 400
    assert (await visit.http.post("/demo/create", content=b"\xff\x00")).status_code == 400
    assert visit.stage.running.provider.transactions == {}


async def test_everything_else_is_the_services(visit: Visit) -> None:
    assert (await visit.http.get("/livez")).json() == {}
    assert (await visit.http.get("/nothing")).status_code == 404
    assert (await visit.http.post("/livez")).status_code == 405


async def test_the_pages_need_nothing_from_elsewhere(visit: Visit) -> None:
    visit.stage.create()
    for path in ("/", "/inbox", "/sms", "/erp", "/demo/style.css", "/demo/script.js"):
        text = (await visit.http.get(path)).text
        outside = text.replace(visit.stage.url, "").replace(visit.stage.running.url, "")
        assert "http://" not in outside
        assert "https://" not in outside
    assert (await visit.http.get("/demo/logo.png")).content.startswith(b"\x89PNG")


# --- grouped purchases -----------------------------------------------------------------------------------------------


async def test_two_months_of_purchases_become_an_invoice_per_customer_and_month(visit: Visit) -> None:
    provider = visit.stage.running.provider
    for month in (1, 2):
        for form in ({"customer": ""}, {"customer": "lind"}):
            assert (await visit.http.post("/demo/buy", data=form)).status_code == 303
        page = (await visit.http.get("/demo/groups")).text
        assert page.count("to be invoiced") == 3
        assert ("Lind &amp; Son AB" in page, "2 purchases: " in page) == (True, True)
        before = visit.stage.clock.now()
        moved = await visit.http.post("/demo/move", data={"days": ""})
        assert (moved.status_code, moved.headers["location"]) == (303, "/#groups")
        assert visit.stage.clock.now() > before
        assert len(provider.billing.bills) == 3 * month
        assert provider.forecast() == {}
    bill = provider.billing.bills[-1]
    record_id = f"{provider.account_id}.invoice.{bill.number}"
    visit.service.records[record_id] = {"transaction_id": record_id, "outcome": "completed", "reason": ODD}
    visit.receive(f"Subject: Faktura {bill.number}\n\nhei\n")
    for path in ("/", "/demo/groups"):
        page = (await visit.http.get(path)).text
        assert f"invoiced {bill.issued}, due {bill.due}" in page
        assert "(moved on)" in page
        assert f'href="/record/{record_id}"' in page
        assert (page.count("1 mail<"), page.count("0 mails<")) == (1, 5)
        assert "<script>alert" not in page


async def test_the_page_says_what_the_service_knows_of_a_group(visit: Visit) -> None:
    provider = visit.stage.running.provider
    visit.stage.buy("lind", "lind")
    assert "The service: not yet known." in (await visit.http.get("/demo/groups")).text
    first, second = provider.transactions
    group: dict[str, Any] = {"purchases": [first, second], "billed": [], "amount": 50_000, "currency": "SEK"}
    group |= {"issue_date": "2026-08-03", "issue_date_business_day": "2026-08-03"}
    group |= {"due_date": "2026-08-17", "due_date_business_day": "2026-08-17", "differences": {}}
    visit.service.known = [group]
    page = (await visit.http.get("/demo/groups")).text
    assert "The service: forecast 500.00 SEK, issued 2026-08-03, due 2026-08-17." in page
    group |= {"issue_date_business_day": "2026-08-04", "due_date_business_day": "2026-08-18"}
    page = (await visit.http.get("/demo/groups")).text
    assert "issued 2026-08-03 or 2026-08-04, due 2026-08-17 or 2026-08-18 (both rules)." in page
    visit.stage.move_on()
    group["billed"] = [first]
    assert "not yet seen billed: order-1002." in (await visit.http.get("/demo/groups")).text
    group["billed"] = [first, second]
    page = (await visit.http.get("/demo/groups")).text
    assert "forecast 500.00 SEK; purchases and dates as expected." in page
    group["differences"] = {second: ODD}
    page = (await visit.http.get("/demo/groups")).text
    assert "billed otherwise than expected." in page
    assert "order-1002: &lt;script&gt;" in page
    assert "as expected." not in page


async def test_purchases_and_the_clock_are_moved_only_as_the_page_can(visit: Visit) -> None:
    before, away = visit.stage.clock.now(), {"sec-fetch-site": "cross-site"}
    assert (await visit.http.post("/demo/buy", data={"customer": ODD})).status_code == 400
    assert (await visit.http.post("/demo/move", data={"days": "-1"})).status_code == 400
    assert (await visit.http.post("/demo/buy", data={"customer": ""}, headers=away)).status_code == 403
    assert (await visit.http.post("/demo/move", data={"days": ""}, headers=away)).status_code == 403
    assert visit.stage.running.provider.transactions == {}
    await visit.http.post("/demo/move", data={"days": "10"})
    assert timedelta(days=10) <= visit.stage.clock.now() - before < timedelta(days=10, seconds=30)


async def test_one_clock_moves_all_and_wakes_who_sleeps() -> None:
    clock = MovableClock()
    asleep = asyncio.create_task(clock.sleep(86_400))
    longer = asyncio.create_task(clock.sleep(3 * 86_400))
    await asyncio.sleep(0)
    before, monotonic = clock.now(), clock.monotonic()
    clock.advance(2 * 86_400)
    async with asyncio.timeout(5):
        await asleep
    assert not longer.done()
    longer.cancel()
    assert clock.offset == timedelta(days=2)
    assert clock.now() - before >= clock.offset
    assert clock.monotonic() - monotonic >= 2 * 86_400
    with pytest.raises(ValueError, match="back"):
        clock.set(before)
    assert clock.offset == timedelta(days=2)
    async with asyncio.timeout(5):
        await clock.sleep(0)


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_faults_are_switched_on_and_off_on_the_page(visit: Visit) -> None:
    faults = visit.stage.faults
    home = (await visit.http.get("/")).text
    assert "nothing switched on" in home
    for name, kind in KINDS.items():
        assert f'<option value="{name}">{name}: {markup(kind.about)}</option>' in home
    form = {"name": "500-after", "chance": "50", "count": "3", "where": "capture"}
    answer = await visit.http.post("/demo/faults/on", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/#faults")
    await visit.http.post("/demo/faults/on", data={"name": "callback-lost", "chance": "100", "count": "", "where": ""})
    assert [active.fault for active in faults.active()] == [
        Fault(name="500-after", probability=0.5, count=3, where="capture"),
        Fault(name="callback-lost"),
    ]
    visit.stage.create()
    for path in ("/", "/demo/faults"):
        page = (await visit.http.get(path)).text
        assert "50 %, 3 left" in page
        assert "struck 1\u00d7" in page
    await visit.http.post("/demo/faults/off", data={"name": "500-after"})
    assert [active.fault.name for active in faults.active()] == ["callback-lost"]
    await visit.http.post("/demo/faults/off")
    assert faults.active() == ()
    assert "Struck so far: callback-lost 1\u00d7" in (await visit.http.get("/demo/faults")).text


@pytest.mark.parametrize(
    "changes", [{"name": "501"}, {"chance": "0"}, {"chance": "101"}, {"chance": ""}, {"count": "0"}, {"count": "x"}]
)
async def test_a_fault_that_means_nothing_is_refused(visit: Visit, changes: dict[str, str]) -> None:
    form = {"name": "500", "chance": "100", "count": "", "where": ""} | changes
    assert (await visit.http.post("/demo/faults/on", data=form)).status_code == 400
    assert visit.stage.faults.active() == ()


async def test_what_is_typed_into_a_fault_is_escaped_and_comes_from_this_site(visit: Visit) -> None:
    form = {"name": "500", "chance": "100", "count": "", "where": ODD}
    away = await visit.http.post("/demo/faults/on", data=form, headers={"sec-fetch-site": "cross-site"})
    assert (away.status_code, visit.stage.faults.active()) == (403, ())
    await visit.http.post("/demo/faults/on", data=form)
    for path in ("/", "/demo/faults"):
        page = await visit.http.get(path)
        assert "<script>alert" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
