"""Account webhooks and statements on the whole stage: the provider's own subscriptions, the service, the commands."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from service import cli_frame
from service.cli import cli
from service.delivery import Condition, Outcome
from service.subscription import LOOKED_AFTER_EVERY
from tests.fakes import ACCOUNT
from tests.servers import Reply, Seen, serve
from tests.stage import Stage, environment, open_stage

SECRET = "hook-secret"
EVENTS = ["checkout_authorization", "checkout_transaction"]


@pytest.fixture
async def stage(sqlite_url: str) -> AsyncIterator[Stage]:
    settings = {"DELIVERY_WEBHOOK_SECRETS": f"{SECRET},an-old-one"}
    async with open_stage(sqlite_url, settings=settings, path="/shop") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _as_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a folder without .env, and with this process's log left as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_frame, "quiet_log", lambda _=(): None)


async def command(stage: Stage, url: str, *arguments: str, **changes: str) -> Result:
    """Run a command beside the service, as another process would, and with its standard output to itself."""
    env = environment(stage.running, stage.mail, public_url=stage.url, database_url=url)
    env |= {"DELIVERY_WEBHOOK_SECRETS": SECRET} | changes
    with capture_logs():
        return await asyncio.to_thread(CliRunner().invoke, cli, arguments, env=env)


async def checked(stage: Stage, url: str, **changes: str) -> dict[str, Any]:
    done = await command(stage, url, "check", "--json", **changes)
    return {result["name"]: result for result in json.loads(done.stdout)}


def subscribe(stage: Stage, *events: str, secret: str = SECRET) -> Any:
    config = {
        "url": f"{stage.url}/webhooks/dintero",
        "content_type": "application/json",
        "secret": {"type": "HMAC-SHA1", "secret": secret},
        "insecure_ssl": 0,
    }
    return stage.provider.webhooks.create({"config": config, "events": list(events or EVENTS)})


def elsewhere(body: Any) -> None:
    """A shop whose own plug-in has the callback_url."""
    body["session"]["url"]["callback_url"] = "http://127.0.0.1:9/plug-in"


def callbacks(stage: Stage) -> dict[str, float]:
    lines = stage.app.metrics.render(None).decode().splitlines()
    shown = [
        line.partition('callbacks_total{result="')[2].partition('"} ') for line in lines if "callbacks_total{" in line
    ]
    return {name: float(count) for name, _, count in shown if float(count)}


async def test_an_invoice_is_delivered_and_captured_on_a_webhooks_word_alone(stage: Stage) -> None:
    subscribe(stage)
    sold = stage.sell(change=elsewhere)
    await stage.settle()
    delivery = await stage.delivery(sold)
    assert (delivery.outcome, delivery.progress) == (Outcome.COMPLETED, ("delivered", "captured"))
    assert delivery.source == "webhook"
    assert len(stage.mails()) == 1
    assert callbacks(stage)["ping"] == 1
    assert not {"forged", "unusable"} & callbacks(stage).keys()


async def test_a_callback_and_webhooks_for_one_transaction_make_one_mail(stage: Stage) -> None:
    subscribe(stage)
    sold = stage.sell()
    await stage.settle()
    await stage.settle(after=3600)
    assert (await stage.delivery(sold)).outcome is Outcome.COMPLETED
    assert len(stage.mails()) == 1
    assert sum(attempt.status == 200 for attempt in stage.running.caller.attempts) >= 4  # a ping, and three that tell


async def test_a_void_after_delivery_is_learnt_from_a_webhook(stage: Stage) -> None:
    subscribe(stage, "checkout_transaction")
    sold = stage.sell(change=elsewhere)
    await stage.settle()
    stage.provider.void(sold)
    with capture_logs() as logs:
        await stage.settle()
    assert (await stage.delivery(sold)).voided_at is not None
    assert "alarm.voided_after_delivery" in [line["event"] for line in logs]


async def test_a_webhook_signed_by_a_stranger_enters_nothing(stage: Stage) -> None:
    subscribe(stage, secret="a strangers")
    stage.sell(change=elsewhere)
    await stage.settle()
    assert await stage.app.store.listing() == ()
    assert callbacks(stage).keys() == {"forged"}


async def test_ensure_creates_what_the_provider_then_uses(stage: Stage, sqlite_url: str) -> None:
    done = await command(stage, sqlite_url, "webhooks", "ensure", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    (one,) = said["subscriptions"]
    assert (said["created"], one["url"], one["events"]) == (True, f"{stage.url}/webhooks/dintero", EVENTS)
    assert one["id"] == stage.provider.webhooks.listed()[0]["id"]
    sold = stage.sell(change=elsewhere)
    await stage.settle()
    assert (await stage.delivery(sold)).outcome is Outcome.COMPLETED
    assert callbacks(stage)["ping"] == 1

    again = await command(stage, sqlite_url, "webhooks", "ensure")
    assert (again.exit_code, again.stdout.splitlines()[0].partition(":")[0]) == (0, "There")
    assert len(stage.provider.webhooks.listed()) == 1
    assert json.loads((await command(stage, sqlite_url, "webhooks", "ensure", "--json")).stdout)["created"] is False


async def test_ensure_mends_one_that_lacks_an_event_or_is_inactive(stage: Stage, sqlite_url: str) -> None:
    subscribe(stage, "checkout_transaction")
    subscribe(stage)["active"] = False
    done = await command(stage, sqlite_url, "webhooks", "ensure")
    assert done.exit_code == 0
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["There", "Inactive", "Created"]
    assert stage.provider.webhooks.listed()[-1]["events"] == ["checkout_authorization"]


async def test_ensure_needs_a_secret_and_a_right(stage: Stage, sqlite_url: str) -> None:
    done = await command(stage, sqlite_url, "webhooks", "ensure", DELIVERY_WEBHOOK_SECRETS="")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "DELIVERY_WEBHOOK_SECRETS: is required for webhooks\n"
    for where in ("create_subscription", "list_subscriptions"):
        stage.faults.on("403", where=where)
        done = await command(stage, sqlite_url, "webhooks", "ensure", "--json")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "admin:hooks" in done.stderr
        assert SECRET not in done.stderr


async def test_what_happened_to_a_creation_is_said_as_far_as_it_is_known(stage: Stage, sqlite_url: str) -> None:
    stage.faults.on("500", where="create_subscription")
    done = await command(stage, sqlite_url, "webhooks", "ensure")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "NOT KNOWN whether it was created. Run it again" in done.stderr
    assert "scope" not in done.stderr
    stage.faults.clear()
    stage.faults.on("503", where="list_subscriptions")
    done = await command(stage, sqlite_url, "webhooks", "ensure")
    assert done.exit_code == 1
    assert done.stderr.endswith("Nothing was created.\n")
    assert "scope" not in done.stderr


async def test_a_set_up_in_the_order_of_the_readme_raises_no_alarm(stage: Stage, sqlite_url: str) -> None:
    """The secret, the start, `webhooks ensure`; and from then on it is an alarm when it goes."""
    with capture_logs() as logs:
        await stage.app.chores.look()
    assert "service.not_subscribed" in [line["event"] for line in logs]
    before = await checked(stage, sqlite_url)
    assert not before["webhooks"]["ok"]
    assert "webhooks ensure" in before["webhooks"]["detail"]
    assert before["webhook URL"]["ok"]
    assert "subscription gone" not in before
    assert (await command(stage, sqlite_url, "webhooks", "ensure")).exit_code == 0
    assert (await checked(stage, sqlite_url))["webhooks"]["ok"]
    stage.provider.webhooks.delete(stage.provider.webhooks.listed()[0]["id"])
    stage.clock.advance(LOOKED_AFTER_EVERY + 61)
    with capture_logs() as later:
        await stage.app.chores.look()
    assert "alarm.subscription_gone" in [line["event"] for line in later]
    assert "alarm.subscription_gone" not in [line["event"] for line in logs]


async def test_one_that_is_created_again_is_not_gone_any_more(stage: Stage, sqlite_url: str) -> None:
    """At once, and not after the next hourly look."""
    job = await stage.app.store.take_job(f"{ACCOUNT}:subscription", every=0, lease=60)
    assert job is not None
    await stage.app.store.end_job(job, done=True, note="gone")  # as an hourly look leaves it
    (gone,) = await stage.app.store.concerns(ACCOUNT)
    assert gone.condition is Condition.SUBSCRIPTION
    assert (await command(stage, sqlite_url, "webhooks", "ensure")).exit_code == 0
    assert await stage.app.store.concerns(ACCOUNT) == ()


async def test_a_proxy_that_passes_only_callbacks_on_is_found(stage: Stage, sqlite_url: str) -> None:
    async def only_callbacks(seen: Seen) -> Reply:
        ours = seen.target == "/callback"
        return Reply(status=401, body=b'{"error":"bad_signature"}') if ours else Reply(status=404, body=b"{}")

    async with serve(only_callbacks) as proxy:
        found = await checked(stage, sqlite_url, DELIVERY_PUBLIC_URL=proxy.url)
    assert found["public URL"]["ok"]
    assert not found["webhook URL"]["ok"]
    assert "/webhooks/dintero" in found["webhook URL"]["detail"]
    assert "webhook URL" not in await checked(stage, sqlite_url, DELIVERY_WEBHOOK_SECRETS="")


async def test_once_an_hour_somebody_looks_that_it_is_there(stage: Stage) -> None:
    created = subscribe(stage)
    await stage.app.chores.look()
    stage.provider.webhooks.delete(created["id"])
    with capture_logs() as logs:
        stage.clock.advance(LOOKED_AFTER_EVERY / 2)
        await stage.app.chores.look()
        assert "alarm.subscription_gone" not in [line["event"] for line in logs]
        stage.clock.advance(LOOKED_AFTER_EVERY / 2 + 61)
        await stage.app.chores.look()
    assert "alarm.subscription_gone" in [line["event"] for line in logs]
    stage.clock.advance(LOOKED_AFTER_EVERY + 61)
    job = await stage.app.store.take_job(f"{ACCOUNT}:subscription", every=LOOKED_AFTER_EVERY, lease=60)
    assert job is not None
    assert job.note == "gone"


async def test_without_a_secret_nobody_listens_or_looks(sqlite_url: str) -> None:
    async with open_stage(sqlite_url) as stage:
        subscribe(stage)
        await stage.settle()
        assert {attempt.status for attempt in stage.running.caller.attempts} == {404}
        assert "subscription" not in await stage.app.chores.look()


# --- statements ------------------------------------------------------------------------------------------------------


async def test_a_statement_explains_everything_or_is_exit_1(stage: Stage, sqlite_url: str) -> None:
    sold = stage.sell()
    stage.sell(channel="kravia")
    await stage.settle()
    amount = (await stage.delivery(sold)).amount
    done = await command(stage, sqlite_url, "statement", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["count"], said["unexplained"]) == (2, [])
    assert [(line["explanation"], line["count"]) for line in said["lines"]] == [("completed", 1), ("skipped", 1)]
    assert said["lines"][0] == {"explanation": "completed", "currency": "NOK", "count": 1, "amount": amount}

    missed = stage.sell(change=elsewhere)
    done = await command(stage, sqlite_url, "statement", "--json")
    assert done.exit_code == 1
    assert [one["transaction_id"] for one in json.loads(done.stdout)["unexplained"]] == [missed]
    done = await command(stage, sqlite_url, "statement")
    assert done.exit_code == 1
    assert missed in done.stdout
    assert "UNEXPLAINED" in done.stdout
    assert "3 transactions" in done.stdout
    assert "1 unexplained" in done.stdout


async def test_a_statement_is_of_days_in_the_merchants_zone(stage: Stage, sqlite_url: str) -> None:
    done = await command(stage, sqlite_url, "statement", "--from", "2026-03-01", "--to", "2026-03-31", "--json")
    said = json.loads(done.stdout)
    assert (said["from"], said["to"]) == ("2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z")  # summer time began
    assert (done.exit_code, said["count"], said["lines"]) == (0, 0, [])
    for wrong in (
        ("--from", "2026-03-02", "--to", "2026-03-01"),
        ("--from", "yesterday"),
        ("--to", "9999-12-31"),
        ("--to", "0001-01-09"),
        ("--from", "0001-01-01"),
    ):
        done = await command(stage, sqlite_url, "statement", *wrong)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "Usage: " in done.stderr


async def test_a_statement_covers_thirty_days_unless_told(stage: Stage, sqlite_url: str) -> None:
    done = await command(stage, sqlite_url, "statement", "--to", "2026-11-30", "--json")
    said = json.loads(done.stdout)
    assert (said["from"], said["to"]) == ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z")


async def test_a_statement_says_nothing_of_what_it_did_not_see(stage: Stage, sqlite_url: str) -> None:
    stage.faults.on("503")
    done = await command(stage, sqlite_url, "statement", "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr
