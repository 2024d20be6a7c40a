"""Wiring: what `check` finds, what settings do to real mails, and what cannot start."""

import base64
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType

import httpx2 as httpx
import pytest

from service.app import CheckResult, check
from service.delivery import ChannelContext, DeliveryFailure, Outcome, Request
from service.serving import listen, origin
from service.settings import Need, SettingsError, load_settings
from service.simulator.api import open_provider
from service.simulator.mail import MailServer, open_mail_server
from service.store import migrate as migrate_store
from service.web.pages import NO_PAGE
from tests.fakes import ACCOUNT, FakeChannel, MovedClock
from tests.stage import Stage, environment, open_stage


@asynccontextmanager
async def checked(tmp_path: Path, **changes: str) -> AsyncIterator[dict[str, CheckResult]]:
    clock = MovedClock()
    server = MailServer(clock=clock, random=Random(7), credentials=("shop", "right"))
    async with open_provider(clock=clock) as provider, open_mail_server(server) as mail:
        with listen() as nobody:
            url = origin(nobody)
        settings = environment(provider, mail, public_url=url, database_url=f"sqlite:///{tmp_path}/d.db")
        results = await check(load_settings(settings | changes, need=Need.SERVE))
        yield {result.name: result for result in results}


async def test_check_tries_everything_and_says_what_is_wrong(tmp_path: Path) -> None:
    migrate_store(f"sqlite:///{tmp_path}/d.db")
    async with checked(tmp_path) as results:
        assert [name for name, result in results.items() if result.ok] == [
            "store",
            "token",
            "channel email",
            "templates",
            "alerts",
            "deliveries",
        ]
        assert "DELIVERY_PUBLIC_URL" in results["public URL"].detail


async def test_polling_alone_is_healthy_when_it_is_meant(tmp_path: Path) -> None:
    migrate_store(f"sqlite:///{tmp_path}/d.db")
    async with checked(tmp_path, DELIVERY_SILENCE_HOURS="0") as results:
        assert all(result.ok for result in results.values())
        assert "DELIVERY_SILENCE_HOURS=0" in results["public URL"].detail
    async with checked(tmp_path, DELIVERY_SILENCE_HOURS="0", DELIVERY_RECONCILE_EVERY="0") as results:
        assert not results["public URL"].ok


async def test_check_knows_its_own_public_address(tmp_path: Path) -> None:
    async with open_stage(f"sqlite:///{tmp_path}/d.db", path="/bl%C3%A5b%C3%A6r") as stage:
        assert await stage.app.payments.reach(f"{stage.url}/callback") == f"{stage.url}/callback leads here"
        with pytest.raises(DeliveryFailure):
            await stage.app.payments.reach(f"{stage.running.url}/transactions")


async def test_check_leaves_a_record_that_is_not_there_alone(tmp_path: Path) -> None:
    async with checked(tmp_path) as results:
        assert not results["store"].ok
        assert "migrate" in results["store"].detail
    assert not (tmp_path / "d.db").exists()


@pytest.mark.parametrize("path", ["/invoices", "/bl%C3%A5b%C3%A6r/%7Efaktura"])
async def test_a_prefix_may_be_kept_by_the_proxy_or_stripped(tmp_path: Path, path: str) -> None:
    async with open_stage(f"sqlite:///{tmp_path}/d.db", path=path) as stage:
        kept = stage.sell()
        await stage.settle()
        assert (await stage.delivery(kept)).outcome is Outcome.COMPLETED
        attempt = stage.running.caller.attempts[0]
        stripped = attempt.url.replace(f"{path}/callback", "/callback")
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.request(attempt.method, stripped, headers=attempt.headers)
        assert answer.status_code == 200


async def test_check_finds_a_wrong_secret_and_a_wrong_password(tmp_path: Path) -> None:
    wrong = {"DELIVERY_CLIENT_SECRET": "wr0ng-s3cret", "DELIVERY_SMTP_URL": "smtp+insecure://shop:wr0ng@127.0.0.1:1"}
    async with checked(tmp_path, **wrong) as results:
        assert not results["token"].ok
        assert "401" in results["token"].detail
        assert "DELIVERY_CLIENT_SECRET" in results["token"].detail
        assert not results["channel email"].ok
        assert "DELIVERY_SMTP_URL" in results["channel email"].detail
        assert "wr0ng" not in str(results)


async def test_a_redirected_message_goes_nowhere_else_and_says_so(tmp_path: Path) -> None:
    settings = {
        "DELIVERY_ALLOW_REAL_RECIPIENTS": "",
        "DELIVERY_REDIRECT_TO": "tester@butikken.example",
        "DELIVERY_MAIL_BCC": "archive@butikken.example",
    }
    async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=settings) as stage:
        transaction_id = stage.sell()
        await stage.settle()
        assert (await stage.delivery(transaction_id)).outcome is Outcome.COMPLETED
        await stage.mail.wait(2)
        assert {recipient for mail in stage.mail.inbox for recipient in mail.recipients} == {"tester@butikken.example"}
        body = stage.mails()[0].get_body(("plain",))
        assert body is not None
        customer = stage.provider.transaction(transaction_id)["billing_address"]["email"]
        assert f"{customer[0]}***@" in body.as_string()
        assert customer not in stage.mail.inbox[0].content.decode("latin-1")


async def test_a_blind_copy_is_a_second_mail_that_changes_nothing(tmp_path: Path) -> None:
    settings = {"DELIVERY_MAIL_BCC": "Archive <archive@butikken.example>"}
    async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=settings) as stage:
        stage.mail.refuse("archive@butikken.example", "550 5.1.1 no", times=1)
        first = stage.sell()
        await stage.settle()
        second = stage.sell()
        await stage.settle()
        assert (await stage.delivery(first)).outcome is Outcome.COMPLETED
        assert (await stage.delivery(second)).outcome is Outcome.COMPLETED
        await stage.mail.wait(3)
        to = [mail.recipients[0] for mail in stage.mail.inbox]
        assert to.count("archive@butikken.example") == 1
        assert len(stage.provider.captures_asked) == 2
        assert b'alarms_total{alarm="blind_copy_failed"} 1.0' in stage.app.metrics.render(None)


async def test_a_resend_to_another_address_says_that_it_is_a_copy(tmp_path: Path) -> None:
    async with open_stage(f"sqlite:///{tmp_path}/d.db") as stage:
        transaction_id = stage.sell()
        await stage.settle()
        request = Request(by="kari", at=stage.clock.now(), to="new@kunde.example")
        await stage.app.store.resend(transaction_id, request)
        await stage.settle()
        first, copy = stage.mails()
        assert stage.mail.inbox[1].recipients == ("new@kunde.example",)
        assert first["Message-ID"] != copy["Message-ID"]
        assert first["Subject"] != copy["Subject"]
        assert len(stage.provider.captures_asked) == 1


async def test_a_revoked_token_is_fetched_anew(tmp_path: Path) -> None:
    async with open_stage(f"sqlite:///{tmp_path}/d.db") as stage:
        await _one(stage)
        stage.provider.keys.revoke()
        await _one(stage)
        assert stage.provider.keys.issued == 2


async def _one(stage: Stage) -> None:
    transaction_id = stage.sell()
    await stage.settle()
    assert (await stage.delivery(transaction_id)).outcome is Outcome.COMPLETED


async def test_an_adapter_of_ones_own_delivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = FakeChannel()
    channel.name = "pigeon"
    contexts: list[ChannelContext] = []

    @asynccontextmanager
    async def open_pigeon(context: ChannelContext) -> AsyncIterator[FakeChannel]:
        contexts.append(context)
        yield channel

    module = ModuleType("pigeons")
    module.open_pigeon = open_pigeon  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pigeons", module)
    settings = {
        "DELIVERY_CHANNELS": "pigeons:open_pigeon",
        "DELIVERY_PIGEON_KEY": "corn",
        "DELIVERY_REDIRECT_TO": "tester@butikken.example",
    }
    async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=settings) as stage:
        transaction_id = stage.sell()
        await stage.settle()
        delivery = await stage.delivery(transaction_id)
        assert (delivery.outcome, delivery.channel) == (Outcome.COMPLETED, "pigeon")
        assert stage.mail.inbox == []
        assert [(c.account_id, dict(c.environ), c.redirect_email) for c in contexts] == [
            (ACCOUNT, {"DELIVERY_PIGEON_KEY": "corn"}, "tester@butikken.example")
        ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DELIVERY_CHANNELS": "no_such_package:factory"}, "no_such_package"),
        ({"DELIVERY_CHANNELS": "email,service.delivery:no_such_factory"}, "no_such_factory"),
    ],
)
async def test_what_cannot_start_says_why(tmp_path: Path, changes: dict[str, str], words: str) -> None:
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - in an open stage it comes in a group
        async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=changes):
            pass
    assert words in str(_leaf(raised.value))


async def test_a_wrong_template_is_found_at_start(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "invoice.txt").write_text("{{ no_such_variable }}")
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - as above
        async with open_stage(f"sqlite:///{tmp_path}/d.db", settings={"DELIVERY_TEMPLATES_DIR": str(tmp_path)}):
            pass
    found = _leaf(raised.value)
    assert isinstance(found, SettingsError)
    assert "invoice.txt" in str(found)
    assert "no_such_variable" in str(found)


MISFITS = {
    "DELIVERY_LINK_KEY": base64.b64encode(bytes(32)).decode(),
    "DELIVERY_RECEIPTS_EMAIL": "sendgrid",
    "DELIVERY_RECEIPTS_EMAIL_SECRET": "no-such-k3y",
}


def misfits(tmp_path: Path) -> dict[str, str]:
    """Return settings of the right form whose files will not do, and a key that is none."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "invoice.html").write_text("{{ no_such_variable }}")
    (tmp_path / "routes.toml").write_text('[[rule]]\nchannels = ["pigeon"]\ncolour = 3\n')
    places = {"DELIVERY_TEMPLATES_DIR": str(tmp_path), "DELIVERY_ROUTES_FILE": str(tmp_path / "routes.toml")}
    return MISFITS | places


async def test_all_that_does_not_fit_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - as above
        async with open_stage(f"sqlite:///{tmp_path}/d.db", settings=misfits(tmp_path)):
            pass
    found = _leaf(raised.value)
    assert isinstance(found, SettingsError)
    named = [line.partition(": ")[0] for line in found.mistakes]
    assert named == [
        *("DELIVERY_ROUTES_FILE", "DELIVERY_ROUTES_FILE"),
        *("DELIVERY_RECEIPTS_EMAIL_SECRET", "DELIVERY_TEMPLATES_DIR"),
    ]
    assert not (tmp_path / "d.db").exists()


async def test_check_finds_whatever_would_keep_the_service_from_starting(tmp_path: Path) -> None:
    async with checked(tmp_path, **misfits(tmp_path)) as results:
        assert "no_such_variable" in results["templates"].detail
        assert "colour" in results["routes"].detail
        assert "pigeon" in results["routes"].detail
        assert "DELIVERY_RECEIPTS_EMAIL_SECRET" in results["receipts"].detail
        assert not any(results[name].ok for name in ("templates", "routes", "receipts"))
        assert "no-such-k3y" not in str(results)


async def test_check_says_what_is_taken_of_rules_and_reports(tmp_path: Path) -> None:
    (tmp_path / "routes.toml").write_text('[[rule]]\nchannels = ["email"]\n')
    good = {"DELIVERY_RECEIPTS_EMAIL": "postmark", "DELIVERY_RECEIPTS_EMAIL_SECRET": "s" * 16}
    async with checked(tmp_path, DELIVERY_ROUTES_FILE=str(tmp_path / "routes.toml"), **good) as results:
        assert (results["routes"].ok, results["routes"].detail) == (True, "1 rule, then CHANNELS")
        assert (results["receipts"].ok, results["receipts"].detail) == (True, "taken at /receipts/email")


def _leaf(raised: BaseException) -> BaseException:
    while isinstance(raised, BaseExceptionGroup):
        raised = raised.exceptions[0]
    return raised


async def test_a_channel_that_cannot_open_is_one_line_of_check(tmp_path: Path) -> None:
    async with checked(tmp_path, DELIVERY_CHANNELS="email,json:loads") as results:
        assert results["channel email"].ok
        assert "DELIVERY_CHANNELS: json:loads cannot be opened" in results["channel json:loads"].detail


KEY = base64.b64encode(bytes(range(32))).decode()


async def test_a_channel_of_links_needs_the_invoice_page(tmp_path: Path) -> None:
    post = {
        "DELIVERY_HTTP_URL": "http://127.0.0.1:9/",
        "DELIVERY_HTTP_SECRETS": "s" * 32,
        "DELIVERY_HTTP_ALLOW_PRIVATE": "true",
    }
    changes = post | {"DELIVERY_CHANNELS": "email,http", "DELIVERY_HTTP_DOCUMENT": "link"}
    async with checked(tmp_path, **changes) as results:
        assert results["channel http"].detail.startswith("DELIVERY_LINK_KEY: is required for the channel http")
    async with checked(tmp_path, DELIVERY_LINK_KEY=KEY, **changes) as results:
        assert "DELIVERY_LINK_KEY" not in results["channel http"].detail


@pytest.mark.parametrize("where", ["database", "folder", "nowhere"])
async def test_check_keeps_a_document_where_those_behind_links_are_kept(tmp_path: Path, where: str) -> None:
    migrate_store(f"sqlite:///{tmp_path}/d.db")
    (tmp_path / "file").touch()
    place = {"database": "database", "folder": str(tmp_path / "links"), "nowhere": str(tmp_path / "file" / "links")}
    async with checked(tmp_path, DELIVERY_LINK_KEY=KEY, DELIVERY_LINK_STORE=place[where]) as results:
        assert results["link store"].ok is (where != "nowhere"), results["link store"].detail
        assert ("DELIVERY_LINK_STORE" in results["link store"].detail) is (where == "nowhere")
        assert "/i/" in results["invoice page"].detail  # nobody serves here
    assert not [file for _, _, files in os.walk(tmp_path / "links") for file in files]


@pytest.mark.parametrize("key", [KEY, ""])
async def test_the_place_of_invoice_pages_is_known_from_another(tmp_path: Path, key: str) -> None:
    async with open_stage(f"sqlite:///{tmp_path}/d.db", settings={"DELIVERY_LINK_KEY": key}) as stage:
        reach = partial(stage.app.payments.reach, method="POST", refused_by=(405,))
        with nullcontext() if key else pytest.raises(DeliveryFailure):  # without a key `serve` has no pages
            assert await reach(f"{stage.url}{NO_PAGE}") == f"{stage.url}{NO_PAGE} leads here"
        with pytest.raises(DeliveryFailure):
            await reach(f"{stage.running.url}{NO_PAGE}")


async def test_templates_of_ones_own_channel_are_tried_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def open_post(context: ChannelContext) -> AsyncIterator[FakeChannel]:
        channel = FakeChannel()
        channel.name, channel.template = "post", "post"
        yield channel

    module = ModuleType("letters")
    module.open_post = open_post  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "letters", module)
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - as above
        async with open_stage(f"sqlite:///{tmp_path}/d.db", settings={"DELIVERY_CHANNELS": "letters:open_post"}):
            pass
    assert "post/invoice.txt" in str(_leaf(raised.value))


async def test_nothing_that_an_outside_channel_says_gives_a_secret_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Talkative(FakeChannel):
        async def check(self) -> str:
            raise OSError("the gateway knows no key supersecretkey99")

    @asynccontextmanager
    async def open_talkative(context: ChannelContext) -> AsyncIterator[FakeChannel]:
        yield Talkative()

    @asynccontextmanager
    async def open_broken(context: ChannelContext) -> AsyncIterator[FakeChannel]:
        if context.environ:
            raise ValueError(f"refused: {dict(context.environ)['DELIVERY_POST_KEY']}")
        yield FakeChannel()

    module = ModuleType("talkers")
    module.open_talkative, module.open_broken = open_talkative, open_broken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "talkers", module)
    changes = {
        "DELIVERY_CHANNELS": "talkers:open_talkative,talkers:open_broken",
        "DELIVERY_POST_KEY": "supersecretkey99",
    }
    async with checked(tmp_path, **changes) as results:
        assert "OSError: the gateway knows no key ***" in results["channel email"].detail
        assert "refused: ***" in results["channel talkers:open_broken"].detail
        assert "supersecretkey99" not in str(results)
        assert results["token"].ok
