"""XOAUTH2: tokens from a real endpoint on loopback, and a relay that takes them, or not."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import pytest

from service.channels.email import EmailChannel, open_email
from service.channels.oauth import Grant, Tokens, open_tokens
from service.delivery import AccountFailure, Mailbox
from tests.fakes import MovedClock
from tests.mails import SENDER, composed
from tests.servers import Reply, Seen, json_reply, serve
from tests.smtp_peer import SmtpPeer, smtp_peer
from tests.test_settings import mistakes

TOKEN = "tOkEn-1"
EHLO = "250-relay.example\r\n250 AUTH XOAUTH2 PLAIN"


@dataclass(slots=True, kw_only=True)
class Endpoint:
    """Gives tokens, numbered; `plan` replaces answers."""

    plan: list[Reply] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    lasts: Any = 3600

    async def handle(self, seen: Seen) -> Reply:
        self.forms.append(dict(parse_qsl(seen.body.decode())))
        if self.plan:
            return self.plan.pop(0)
        return json_reply({"access_token": f"tOkEn-{len(self.forms)}", "expires_in": self.lasts})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    endpoint: Endpoint
    peer: SmtpPeer
    channel: EmailChannel
    clock: MovedClock

    def given(self) -> list[str]:
        """Return what the relay was shown, decoded."""
        said = [line.split()[2] for line in self.peer.commands if line.startswith("AUTH XOAUTH2 ")]
        return [base64.b64decode(word).decode() for word in said]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with opened() as one:
        yield one


@asynccontextmanager
async def opened(**more: str) -> AsyncIterator[Scene]:
    clock, endpoint = MovedClock(), Endpoint()
    async with serve(endpoint.handle) as server, smtp_peer() as peer:
        peer.say("EHLO", *[EHLO] * 9)
        given = {"client_secret": "s3cret"} | more
        grant = Grant(token_url=f"{server.url}/token", client_id="app", **given)
        async with open_email(
            account_id="T12345678",
            smtp_url=peer.url.replace("://", "://faktura%40nordlys.example@"),
            mail_from=Mailbox(name="Nordlys", address=SENDER),
            reply_to=None,
            bcc=None,
            redirect_to=None,
            connections=2,
            clock=clock,
            hostname="client.example",
            grant=grant,
        ) as channel:
            yield Scene(endpoint=endpoint, peer=peer, channel=channel, clock=clock)


async def failure(scene: Scene) -> AccountFailure:
    with pytest.raises(AccountFailure) as caught:
        await scene.channel.send(composed(scene.channel))
    assert "s3cret" not in caught.value.reason
    assert "tOkEn" not in caught.value.reason
    return caught.value


async def test_a_mail_goes_with_a_token(scene: Scene) -> None:
    scene.peer.say("AUTH", "235 2.7.0 accepted")
    await scene.channel.send(composed(scene.channel))
    assert scene.given() == [f"user=faktura@nordlys.example\x01auth=Bearer {TOKEN}\x01\x01"]
    assert scene.endpoint.forms == [{"grant_type": "client_credentials", "client_id": "app", "client_secret": "s3cret"}]


async def test_a_refresh_token_and_a_scope_are_sent() -> None:
    async with opened(refresh_token="r3fresh", scope="mail") as scene:
        scene.peer.say("AUTH", "235 2.7.0 accepted")
        await scene.channel.send(composed(scene.channel))
    (form,) = scene.endpoint.forms
    assert (form["grant_type"], form["refresh_token"], form["scope"]) == ("refresh_token", "r3fresh", "mail")


async def test_the_newest_refresh_token_is_the_one_that_is_used() -> None:
    """Some endpoints give another with each access token, and take the earlier one no more."""
    async with opened(refresh_token="r3fresh-1") as scene:
        scene.peer.say("AUTH", *["235 2.7.0 accepted"] * 5)
        names: list[Any] = ["r3fresh-2", "", []]
        given = [{"access_token": "tOkEn-1", "expires_in": 1, "refresh_token": name} for name in names]
        scene.endpoint.plan = [*map(json_reply, given), json_reply({"error": "invalid_grant"}, 400)]
        for _ in range(3):
            await scene.channel.check()
        await failure(scene)
        await scene.channel.check()
    used = [form["refresh_token"] for form in scene.endpoint.forms]
    assert used == ["r3fresh-1", "r3fresh-2", "r3fresh-2", "r3fresh-2", "r3fresh-1"], (
        "after a refusal, the one that is set"
    )


@pytest.mark.parametrize("said", ["501 5.5.4 cannot read {}", "535 5.7.8 no {}", "554 5.7.0 {}"])
async def test_a_relay_that_quotes_what_it_was_shown_tells_nobody(scene: Scene, said: str) -> None:
    shown = [
        base64.b64encode(f"user=faktura@nordlys.example\x01auth=Bearer tOkEn-{n}\x01\x01".encode()) for n in (1, 2)
    ]
    scene.peer.say("AUTH", *[said.format(f"{one.decode()} (tOkEn-{n})") for n, one in enumerate(shown, start=1)])
    reason = (await failure(scene)).reason
    assert "***" in reason
    assert not any(one.decode() in reason for one in shown)


async def test_an_endpoint_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dripping() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    async def handle(_: Seen) -> Reply:
        return Reply(drip=dripping())

    monkeypatch.setattr("service.channels.oauth._WHOLE", 0.1)
    async with serve(handle) as server, giving(server.url) as tokens:
        assert tokens is not None
        with pytest.raises(AccountFailure, match="does not answer"):
            await tokens.get()


async def test_a_token_that_is_refused_is_fetched_anew_once(scene: Scene) -> None:
    no = "334 eyJzdGF0dXMiOiI0MDEifQ=="
    scene.peer.say("AUTH", no, "235 2.7.0 accepted")
    scene.peer.say("", "535 5.7.8 no")
    await scene.channel.send(composed(scene.channel))
    assert [word.split()[1].split("\x01")[0] for word in scene.given()] == ["tOkEn-1", "tOkEn-2"]
    assert len(scene.endpoint.forms) == 2


async def test_after_that_our_account_is_at_fault(scene: Scene) -> None:
    scene.peer.say("AUTH", *["535 5.7.8 no"] * 4)
    await failure(scene)
    assert len(scene.endpoint.forms) == 2


async def test_a_relay_that_has_no_time_has_not_refused_the_token(scene: Scene) -> None:
    scene.peer.say("AUTH", "454 4.7.0 later")
    await failure(scene)
    assert (len(scene.given()), len(scene.endpoint.forms)) == (1, 1)


async def test_a_secret_does_not_follow_a_redirect(scene: Scene) -> None:
    scene.endpoint.plan = [Reply(status=307, headers={"location": "/elsewhere"})]
    assert "answered 307" in (await failure(scene)).reason
    assert len(scene.endpoint.forms) == 1


async def test_a_relay_that_does_not_offer_it(scene: Scene) -> None:
    scene.peer.forget("EHLO")
    scene.peer.say("EHLO", "250-relay.example\r\n250 AUTH PLAIN")
    assert "XOAUTH2" in (await failure(scene)).reason


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (json_reply({"error": "invalid_client"}, 401), "refuses us (401, invalid_client)"),
        (json_reply({"error": "invalid_grant", "error_description": "for kari@example.com"}, 400), "invalid_grant"),
        (json_reply({"error": {"odd": 1}}, 403), "no reason given"),
        (json_reply({}, 500), "answered 500 without a token"),
        (json_reply({"access_token": ""}), "without a token"),
        (json_reply([]), "without a token"),
        (json_reply({"access_token": "bl\u00e5"}), "without a token"),
    ],
)
async def test_an_endpoint_that_gives_none_pauses_the_channel(scene: Scene, reply: Reply, words: str) -> None:
    scene.endpoint.plan = [reply]
    found = await failure(scene)
    assert words in found.reason
    assert "kari" not in found.reason


async def test_one_that_cannot_be_reached_does_too() -> None:
    grant = Grant(token_url="http://127.0.0.1:9/token", client_id="app", client_secret="s3cret")
    async with open_tokens(grant, MovedClock()) as tokens:
        assert tokens is not None
        with pytest.raises(AccountFailure, match="does not answer"):
            await tokens.get()


def giving(url: str, clock: MovedClock | None = None) -> AbstractAsyncContextManager[Tokens | None]:
    return open_tokens(Grant(token_url=url, client_id="app", client_secret="s"), clock or MovedClock())


@pytest.mark.parametrize(("lasts", "kept"), [(3600, 3530), ("3600", 3530), (None, 230), ("soon", 230)])
async def test_a_token_is_kept_until_a_minute_before_it_ends(lasts: object, kept: float) -> None:
    clock, endpoint = MovedClock(), Endpoint(lasts=lasts)
    async with serve(endpoint.handle) as server, giving(server.url, clock) as tokens:
        assert tokens is not None
        first = await tokens.get()
        clock.advance(kept)
        assert await tokens.get() == first
        clock.advance(20)
        assert await tokens.get() != first


async def test_many_ask_and_one_request_is_made() -> None:
    endpoint = Endpoint()
    async with serve(endpoint.handle) as server, giving(server.url) as tokens:
        assert tokens is not None
        cancelled = asyncio.create_task(tokens.get())
        await asyncio.sleep(0)
        cancelled.cancel()
        found = await asyncio.gather(*(tokens.get() for _ in range(8)))
    assert len(set(found)) == 1
    assert len(endpoint.forms) <= 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"SMTP_URL": "smtp://kari@mail.example"}, {"SMTP_URL": "has a user without a password"}),
        (
            {"SMTP_OAUTH_TOKEN_URL": "https://x.example/t"},
            {
                "SMTP_OAUTH_CLIENT_ID": "is required with DELIVERY_SMTP_OAUTH_TOKEN_URL",
                "SMTP_OAUTH_CLIENT_SECRET": "or DELIVERY_SMTP_OAUTH_REFRESH_TOKEN is required",
            },
        ),
        (
            {"SMTP_OAUTH_TOKEN_URL": "x", "SMTP_OAUTH_CLIENT_ID": "a", "SMTP_OAUTH_CLIENT_SECRET": "s"},
            {"SMTP_OAUTH_TOKEN_URL": "must be an address"},
        ),
        (
            {
                "SMTP_URL": "smtp://kari:pw@mail.example",
                "SMTP_OAUTH_TOKEN_URL": "https://x.example/t",
                "SMTP_OAUTH_CLIENT_ID": "a",
                "SMTP_OAUTH_CLIENT_SECRET": "s",
            },
            {"SMTP_URL": "needs a user without a password"},
        ),
    ],
)
def test_settings_that_do_not_go_together(given: dict[str, str], told: dict[str, str]) -> None:
    found = mistakes(**given)
    assert set(found) == {f"DELIVERY_{name}" for name in told}
    for name, words in told.items():
        assert words in found[f"DELIVERY_{name}"]
