"""The simulated SMS providers: reports over real HTTP, late, twice and out of order, and faults."""

from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random

import pytest

from service.app import channel_names
from service.delivery import Fate, Report, ReportRequest
from service.serving import listen, origin
from service.settings import Need, SettingsError, load_settings
from service.simulator.faults import KINDS as KINDS_OF_FAULT
from service.simulator.faults import Faults
from service.simulator.sms import TROUBLES, NotReported, SmsServer, open_sms_server
from service.simulator.sms_wire import KINDS, Asked, Kind
from tests.fakes import MovedClock
from tests.servers import Reply, Seen, serve
from tests.test_sms import INTENT, LOGIN, MESSAGE, NUMBER, SECRET, context, opener, settings, transaction


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
        "DELIVERY_LINK_KEY": "a" * 43,  # nothing but links is texted
    }


@pytest.mark.parametrize("kind", KINDS)
def test_settings_are_known_and_their_secrets_kept(kind: Kind) -> None:
    own = settings(kind, "https://x.example", LOGIN[kind])
    found = load_settings({**environment(f"sms-{kind}"), **own}, need=Need.SERVE)
    assert found.warnings == ()
    assert dict(found.channel_settings) == own
    assert LOGIN[kind].password in found.secret_texts


def test_the_mistakes_of_all_channels_are_told_together() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environment("sms-46elks", "sms-gatewayapi"), need=Need.SERVE)
    named = [line.partition(":")[0].removeprefix("DELIVERY_") for line in caught.value.mistakes]
    elks = ["46ELKS_USER", "46ELKS_PASSWORD", "RECEIPT_SECRET", "SMS_FROM"]
    assert named == [*elks, "GATEWAYAPI_TOKEN", "GATEWAYAPI_WEBHOOK_SECRET"]  # each name once


async def test_channels_open_by_their_names() -> None:
    env = environment(*(f"sms-{kind}" for kind in KINDS))
    for kind in KINDS:
        env |= settings(kind, "https://x.example", LOGIN[kind])
    assert await channel_names(load_settings(env, need=Need.SERVE)) == tuple(f"sms-{kind}" for kind in KINDS)


# --- faults and reports that cannot be sent --------------------------------------------------------------------------


def test_faults_are_its_own_or_shared() -> None:
    faults = Faults(Random(1))
    server = SmsServer(clock=MovedClock(), faults=faults)
    assert server.trouble("link", NUMBER) is None
    faults.on("sms-402", count=1, where=NUMBER)
    faults.on("sms-503", count=1, where="sinch")
    assert server.trouble("twilio", "+4799999999") is None
    assert server.trouble("link", NUMBER) is TROUBLES["sms-402"]
    assert server.trouble("link", NUMBER) is None
    assert server.trouble("sinch") is TROUBLES["sms-503"]
    server.on("sms-500", count=1, kind="46elks")
    assert (server.trouble("link"), server.trouble("46elks")) == (None, TROUBLES["sms-500"])
    assert set(TROUBLES) <= set(KINDS_OF_FAULT)
    with pytest.raises(KeyError):
        server.on("nothing")


async def test_a_report_that_nobody_takes_is_told() -> None:
    server = SmsServer(clock=MovedClock(), login=LOGIN["sinch"])
    asked = Asked(sender="Nordlys", to=NUMBER, text="Faktura", reference=None, callback=None)
    with pytest.raises(NotReported, match="nobody asked"):
        await server.report(server.take("sinch", asked), "delivered")
    gone = listen()
    url = origin(gone)
    gone.close()
    with pytest.raises(NotReported, match="nobody answered"):
        await server.report(server.take("sinch", replace(asked, callback=url)), "delivered")
