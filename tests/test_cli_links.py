"""`links revoke`, and what `deliveries show` says of links; the settings behind them, and the service with it all."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from click.testing import CliRunner, Result

from service.app import open_links
from service.cli import cli
from service.delivery import Outcome
from service.settings import Need, load_settings
from service.vault import DatabaseVault, FolderVault
from service.vault_s3 import BucketVault
from tests.fakes import ACCOUNT, PDF, MovedClock, a_transaction
from tests.stage import Stage, open_stage
from tests.test_settings import env

KEY = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="


async def ran(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, cli, list(arguments))


@pytest.fixture
async def stage(record_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    settings = {"DELIVERY_LINK_KEY": KEY, "DELIVERY_LINK_STORE": str(tmp_path / "documents")}
    async with open_stage(record_url, settings=settings, path="/delivery") as opened:
        yield opened


async def linked(stage: Stage) -> str:
    """Deliver an invoice and return the link to its page."""
    transaction_id = stage.sell()
    await stage.settle()
    delivery = await stage.delivery(transaction_id)
    assert delivery.outcome is Outcome.COMPLETED
    assert stage.app.links is not None
    transaction = a_transaction(transaction_id)
    return await stage.app.links.link(delivery, transaction, PDF, locale="nb")


async def asked(url: str, method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.request(method, url)


async def test_the_service_answers_at_its_public_url_and_forgets(stage: Stage, tmp_path: Path) -> None:
    url = await linked(stage)
    assert url.startswith(f"{stage.url}/i/")
    assert (await asked(url)).status_code == 200
    assert (await asked(f"{url}/invoice.pdf")).content == PDF
    stage.clock.advance(80 * 86400)
    assert "links" in await stage.app.chores.look()
    assert list((tmp_path / "documents" / ACCOUNT).iterdir()) == []
    assert (await asked(url)).status_code == 200
    await asked(url, "POST")
    await stage.settle()
    assert len(stage.mails()) == 2  # the customer has it again, as a copy


async def test_without_a_key_there_is_no_such_page(tmp_path: Path) -> None:
    async with open_stage(f"sqlite:///{tmp_path}/d.db") as stage:
        assert stage.app.links is None
        answer = await asked(f"{stage.url}/i/{'A' * 22}")
        assert (answer.status_code, answer.json()) == (404, {"error": "not_found"})


async def test_a_link_is_shown_and_revoked(stage: Stage) -> None:
    url = await linked(stage)
    (delivery,) = await stage.app.store.listing()
    shown = await ran("deliveries", "show", delivery.id)
    assert "Links\nMADE" in shown.output
    assert url.rpartition("/")[2] not in shown.output
    (told,) = json.loads((await ran("deliveries", "show", delivery.id, "--json")).output)["links"]
    assert (told["opened_at"], told["revoked_at"]) == (None, None)
    assert told["expires_at"] > told["created_at"]
    done = await ran("links", "revoke", delivery.id, "--yes", "--reason", "wrong house")
    assert (done.exit_code, done.output) == (0, f"{delivery.id}: 1 link ended.\n")
    assert (await asked(url)).status_code == 404
    history = await stage.app.store.history(delivery.id)
    assert "wrong house" in (history[-1].detail or "")
    again = await ran("links", "revoke", delivery.id, "--yes")
    assert (again.exit_code, again.output) == (1, f"{delivery.id} has no link that works.\n")


async def test_it_asks_unless_it_is_told_not_to(stage: Stage) -> None:
    url = await linked(stage)
    (delivery,) = await stage.app.store.listing()
    assert (await ran("links", "revoke", delivery.id)).exit_code == 2
    assert (await ran("links", "revoke", "nobody", "--yes")).exit_code == 1
    assert (await asked(url)).status_code == 200


async def test_nobody_is_said_to_be_nobody(record_url: str) -> None:
    assert record_url
    assert (await ran("links", "revoke", "x", "--yes")).output == "No delivery is known by x.\n"


@pytest.mark.parametrize(
    ("place", "kind"), [("database", DatabaseVault), ("documents", FolderVault), ("s3://a-bucket/p", BucketVault)]
)
async def test_documents_are_kept_where_the_setting_says(stage: Stage, place: str, kind: type[Any]) -> None:
    assert stage.app.links is not None
    settings = load_settings(env(LINK_KEY=KEY, LINK_STORE=place), need=Need.SERVE)
    async with open_links(settings, stage.app.store, MovedClock()) as links:
        assert links is not None
        assert isinstance(links.vault, kind)
        assert len(replace(links).seal.key) == 32
