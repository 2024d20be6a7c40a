"""The simulated SMS providers: reports over real HTTP, late, twice and out of order, and the demo's page of texts."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import httpx2 as httpx
import pytest
from starlette.applications import Starlette

from service.app import channel_names
from service.delivery import Fate, Report, ReportRequest
from service.serving import listen, origin, serving
from service.settings import Need, SettingsError, load_settings
from service.simulator.sms import TROUBLES, SmsServer, open_sms_server
from service.simulator.sms_pages import sms_routes
from service.simulator.sms_wire import KINDS, Kind
from tests.fakes import MovedClock
from tests.servers import Reply, Seen, serve
from tests.test_sms import INTENT, LINK, LOGIN, MESSAGE, SECRET, context, opener, settings, transaction

SHOP = "Nordlys Interiør"


@pytest.mark.parametrize("kind", KINDS)
async def test_reports_come_over_the_wire_twice_and_out_of_order(kind: Kind) -> None:
    """The whole way: text, report, what it says; the provider tells its reports apart by what it was given for them."""
    seen: list[Report] = []
    async with AsyncExitStack() as stack:

        async def handle(request: Seen) -> Reply:
            given = ReportRequest(
                method=request.method,
                url=f"{public.url}{request.target}",
                headers=tuple(request.headers.items()),
                body=request.body,
            )
            seen.extend(await channel.read_reports(given, now=server.clock.now()))
            return Reply(status=200)

        public = await stack.enter_async_context(serve(handle))
        login = replace(LOGIN[kind], gate_url=f"{public.url}/receipts/sms-link?secret={SECRET}")
        server = await stack.enter_async_context(open_sms_server(SmsServer(clock=MovedClock(), login=login)))
        given = replace(context(kind, server.url), public_url=public.url)
        channel = await stack.enter_async_context(opener(kind)(given))
        await channel.send(channel.compose(MESSAGE, None, channel.recipient(transaction()), INTENT))
        (text,) = await server.wait(1)
        assert await server.report(text, "pending", hold=True) == []
        assert await server.report(text, "delivered", copies=2) == [200, 200, 200]
    assert [report.fate for report in seen] == [Fate.DELIVERED, Fate.DELIVERED, Fate.DEFERRED]
    assert {report.reference for report in seen} == {INTENT.key}
    assert seen[0].event_id == seen[1].event_id != seen[2].event_id


async def test_a_lost_answer_is_proved_by_its_report() -> None:
    server = SmsServer(clock=MovedClock(), login=LOGIN["46elks"])
    async with open_sms_server(server), opener("46elks")(context("46elks", server.url)) as channel:
        server.on("sms-500-taken", count=1, kind="46elks")
        composed = channel.compose(MESSAGE, None, channel.recipient(transaction()), INTENT)
        with pytest.raises(Exception, match="46elks answered 500"):
            await channel.send(composed)
        call = server.call(server.inbox[0], "delivered")
        given = ReportRequest(method="POST", url=call.url, headers=tuple(call.headers.items()), body=call.body)
        (report,) = await channel.read_reports(given, now=server.clock.now())
    assert (report.reference, report.fate) == (composed.message_id, Fate.DELIVERED)


# --- the settings, as the service reads them -------------------------------------------------------------------------


def environment(*channels: str) -> dict[str, str]:
    return {
        "DELIVERY_ACCOUNT_ID": "T12345678",
        "DELIVERY_CLIENT_ID": "c",
        "DELIVERY_CLIENT_SECRET": "d",
        "DELIVERY_SIGNATURE_SECRETS": "e",
        "DELIVERY_PUBLIC_URL": "https://shop.example",
        "DELIVERY_BRAND_NAME": "Nordlys",
        "DELIVERY_REDIRECT_TO": "+4791234567",
        "DELIVERY_CHANNELS": ",".join(channels),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_known_and_their_secrets_kept(kind: Kind) -> None:
    own = settings(kind, "https://x.example", LOGIN[kind])
    found = load_settings({**environment(f"sms-{kind}"), **own}, need=Need.SERVE)
    assert found.warnings == ()
    assert dict(found.channel_settings) == own
    assert LOGIN[kind].password in found.secret_texts


async def test_the_mistakes_of_all_channels_are_told_together() -> None:
    found = load_settings(environment("sms-46elks", "sms-gatewayapi"), need=Need.SERVE)
    with pytest.raises(SettingsError) as caught:
        await channel_names(found)
    named = [line.partition(":")[0].removeprefix("DELIVERY_") for line in caught.value.mistakes]
    elks = ["46ELKS_USER", "46ELKS_PASSWORD", "RECEIPT_SECRET", "SMS_FROM"]
    assert named == [*elks, "GATEWAYAPI_TOKEN", "GATEWAYAPI_WEBHOOK_SECRET", "SMS_FROM"]


async def test_channels_open_by_their_names() -> None:
    env = environment(*(f"sms-{kind}" for kind in KINDS))
    for kind in KINDS:
        env |= settings(kind, "https://x.example", LOGIN[kind])
    assert await channel_names(load_settings(env, need=Need.SERVE)) == tuple(f"sms-{kind}" for kind in KINDS)


# --- the page --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def page() -> AsyncIterator[tuple[SmsServer, httpx.AsyncClient]]:
    server = SmsServer(clock=MovedClock(), login=LOGIN["sinch"])
    sock = listen()
    async with (
        open_sms_server(server),
        serving(Starlette(routes=sms_routes(server, shop=SHOP)), sock),
        httpx.AsyncClient(trust_env=False, base_url=origin(sock)) as client,
    ):
        yield server, client


async def test_page_shows_texts_and_reports_them(page: tuple[SmsServer, httpx.AsyncClient]) -> None:
    server, client = page
    assert "No text yet" in (await client.get("/sms")).text

    async def taken(_: Seen) -> Reply:
        return Reply(status=200)

    async with serve(taken) as public:
        given = replace(context("sinch", server.url), public_url=public.url)
        async with opener("sinch")(given) as channel:
            text = f"<b>Faktura</b> {LINK}"
            message = replace(MESSAGE, text=text)
            await channel.send(channel.compose(message, None, channel.recipient(transaction()), INTENT))
        shown = await client.get("/sms")
        assert "&lt;b&gt;Faktura" in shown.text
        assert f'<a href="{LINK}">' in shown.text
        assert "default-src 'none'" in shown.headers["content-security-policy"]
        answer = await client.post("/sms/1/report", data={"fate": "delivered"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/sms")
        assert len(public.to("/receipts/sms-sinch")) == 1
    assert "reported: delivered" in (await client.get("/sms")).text
    assert (await client.post("/sms/1/report", data={"fate": "failed"})).status_code == 502  # nobody is there any more
    assert (await client.post("/sms/1/report", data={"fate": "odd"})).status_code == 404
    assert (await client.post("/sms/9/report", data={"fate": "failed"})).status_code == 404


async def test_page_switches_faults_on(page: tuple[SmsServer, httpx.AsyncClient]) -> None:
    server, client = page
    assert (await client.post("/sms/faults", data={"name": "sms-401"})).status_code == 303
    assert server.trouble("link") is TROUBLES["sms-401"]
    assert server.trouble("link") is None
    assert (await client.post("/sms/faults", data={"name": "nothing"})).status_code == 400
    server.on("sms-500")
    assert (await client.post("/sms/faults", data={"name": ""})).status_code == 303
    assert server.trouble("link") is None
    with pytest.raises(KeyError):
        server.on("nothing")
