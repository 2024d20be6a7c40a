"""Who delivers: which level is asked, in which order, how often, and what counts as silence."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from service.delivery import (
    ChannelDefault,
    ChannelFinding,
    DecidedBy,
    Resolution,
    Standing,
    Transaction,
    TransientFailure,
)
from tests.scripted_provider import TOKEN_PATH, Scripted, scripted
from tests.servers import Reply, json_reply

PROFILES = "/checkout/v1/admin/session/profiles"
CHECKOUT = "/checkout/v1/admin/checkout"
UNDECIDED = Transaction(
    id="T1.a",
    standing=Standing.AUTHORIZED,
    status="AUTHORIZED",
    product="kravia",
    product_type="kravia.invoice_b2b",
    amount=1,
    currency="NOK",
    read_at=datetime(2026, 11, 22, tzinfo=UTC),
    profile_id="P1",
)


def options(channel: str, product_type: str = "kravia.invoice_b2b", key: str = "type") -> dict[str, object]:
    return {"configuration": {"payment_options": [{key: product_type, "details": {"invoice_channel": channel}}]}}


def by(level: DecidedBy, channel: str = "merchant") -> Resolution:
    return Resolution(channel=channel, decided_by=level)


@pytest.fixture
async def provider() -> AsyncIterator[Scripted]:
    async with scripted() as opened:
        yield opened


async def test_what_the_transaction_says_needs_no_question(provider: Scripted) -> None:
    findings = (
        ChannelFinding(level=DecidedBy.SESSION, value="whatever"),
        ChannelFinding(level=DecidedBy.PROFILE, value="kravia"),
    )
    told = dataclasses.replace(UNDECIDED, findings=findings)
    assert await provider.dintero.resolve(told) == by(DecidedBy.SESSION, "whatever")
    assert provider.server.seen == []


async def test_the_profile_speaks_before_the_checkout(provider: Scripted) -> None:
    provider.script.on(PROFILES, json_reply([{"id": "P0", **options("kravia")}, {"id": "P1", **options("merchant")}]))
    provider.script.on(CHECKOUT, json_reply(options("kravia")))
    assert await provider.dintero.resolve(UNDECIDED) == by(DecidedBy.PROFILE)
    assert provider.server.to(CHECKOUT) == []


@pytest.mark.parametrize("shape", ["bare", "profiles", "items"])
@pytest.mark.parametrize("key", ["type", "payment_product_type"])
async def test_shapes_of_the_list_of_profiles(provider: Scripted, shape: str, key: str) -> None:
    listed = [7, {"id": 7}, {"id": "P1", **options("merchant", key=key)}]
    provider.script.on(PROFILES, json_reply(listed if shape == "bare" else {shape: listed}))
    assert await provider.dintero.resolve(UNDECIDED) == by(DecidedBy.PROFILE)


async def test_the_products_own_configuration_counts_on_every_level(provider: Scripted) -> None:
    own = {"configuration": {"kravia": {"invoice_b2b": {"invoice_delivery_method": "merchant"}}}}
    provider.script.on(PROFILES, json_reply([{"id": "P1", **own}]))
    assert await provider.dintero.resolve(UNDECIDED) == by(DecidedBy.PROFILE)
    provider.script.on(CHECKOUT, json_reply(own))
    without_profile = dataclasses.replace(UNDECIDED, profile_id=None)
    assert await provider.dintero.resolve(without_profile) == by(DecidedBy.CHECKOUT)


@pytest.mark.parametrize(
    "profiles",
    [
        json_reply([]),
        json_reply([{"id": "P2", **options("merchant")}]),
        json_reply([{"id": "P1", **options("merchant", "kravia.invoice_b2c")}]),
        json_reply("what"),
        json_reply({}, 401),
        json_reply({}, 403),
        json_reply({}, 404),
        Reply(status=404, body=b"<html>"),
    ],
)
async def test_a_silent_profile_leaves_it_to_the_checkout(provider: Scripted, profiles: Reply) -> None:
    provider.script.on(PROFILES, profiles)
    provider.script.on(CHECKOUT, json_reply(options("kravia")))
    assert await provider.dintero.resolve(UNDECIDED) == by(DecidedBy.CHECKOUT, "kravia")


async def test_without_a_profile_none_is_looked_for(provider: Scripted) -> None:
    without = dataclasses.replace(UNDECIDED, profile_id=None)
    assert await provider.dintero.resolve(without) == by(DecidedBy.SETTING, "kravia")
    assert [seen.target for seen in provider.server.seen if seen.target != TOKEN_PATH] == [CHECKOUT]


GROUPED = "kravia.invoice_b2b_grouped"


@pytest.mark.parametrize(
    ("default", "product_type", "channel"),
    [
        (ChannelDefault(), "kravia.invoice_b2b", "kravia"),
        (ChannelDefault(default="merchant"), "kravia.invoice_b2b", "merchant"),
        (ChannelDefault(default="merchant"), GROUPED, "kravia"),
        (ChannelDefault(by_product=((GROUPED, "merchant"),)), GROUPED, "merchant"),
        (ChannelDefault(by_product=((GROUPED, "merchant"),)), "kravia.invoice_b2b", "kravia"),
        (
            ChannelDefault(default="merchant", by_product=(("kravia.invoice_b2c", "kravia"),)),
            "kravia.invoice_b2c",
            "kravia",
        ),
        (
            ChannelDefault(default="merchant", by_product=(("kravia.invoice_b2c", "kravia"),)),
            "kravia.invoice_b2b",
            "merchant",
        ),
    ],
)
async def test_the_setting_speaks_last(default: ChannelDefault, product_type: str, channel: str) -> None:
    async with scripted(invoice_channel=default) as provider:
        asked = dataclasses.replace(UNDECIDED, product_type=product_type)
        found = await provider.dintero.resolve(asked)
        assert (found.channel, found.decided_by) == (channel, DecidedBy.SETTING)


@pytest.mark.parametrize("reply", [json_reply({}, 503), json_reply({}, 429), Reply(body=b"<html>"), Reply(cut=0)])
@pytest.mark.parametrize("path", [PROFILES, CHECKOUT])
async def test_passing_trouble_decides_nothing(provider: Scripted, path: str, reply: Reply) -> None:
    provider.script.on(path, reply)
    with pytest.raises(TransientFailure):
        await provider.dintero.resolve(UNDECIDED)
    provider.script.on(
        path, json_reply([{"id": "P1", **options("merchant")}] if path == PROFILES else options("merchant"))
    )
    assert (await provider.dintero.resolve(UNDECIDED)).channel == "merchant"


@pytest.mark.parametrize("status", [200, 403])
async def test_an_answer_is_kept_for_ten_minutes(provider: Scripted, status: int) -> None:
    provider.script.on(PROFILES, json_reply([{"id": "P1"}], status))
    provider.script.on(CHECKOUT, json_reply(options("merchant"), status))
    await asyncio.gather(*(provider.dintero.resolve(UNDECIDED) for _ in range(20)))
    provider.clock.advance(598)
    await provider.dintero.resolve(UNDECIDED)
    assert (len(provider.server.to(PROFILES)), len(provider.server.to(CHECKOUT))) == (1, 1)
    provider.clock.advance(3)
    await provider.dintero.resolve(UNDECIDED)
    assert (len(provider.server.to(PROFILES)), len(provider.server.to(CHECKOUT))) == (2, 2)


async def test_a_new_profile_is_found_before_the_list_grows_old(provider: Scripted) -> None:
    provider.script.on(PROFILES, json_reply([{"id": "P0", **options("kravia")}]))
    provider.script.on(CHECKOUT, json_reply(options("kravia")))
    assert await provider.dintero.resolve(UNDECIDED) == by(DecidedBy.CHECKOUT, "kravia")
    provider.script.on(PROFILES, json_reply([{"id": "P1", **options("merchant")}]))
    assert await provider.dintero.resolve(UNDECIDED) == by(DecidedBy.CHECKOUT, "kravia")
    assert len(provider.server.to(PROFILES)) == 1
    provider.clock.advance(61)
    assert await provider.dintero.resolve(UNDECIDED) == by(DecidedBy.PROFILE)
    assert len(provider.server.to(PROFILES)) == 2
