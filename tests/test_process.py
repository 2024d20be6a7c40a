"""The service as a process: started, signalled, killed, and what it lets out of the people it serves."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from service.serving import listen, origin
from service.simulator.api import Running as RunningProvider
from service.simulator.api import open_provider
from service.simulator.mail import Behaviour, MailServer, Phase, open_mail_server
from service.simulator.sales import sale
from tests.fakes import MovedClock
from tests.processes import Running, answers, command, running
from tests.stage import OPTIONS, environment

PASSWORD = "sm7p-pa55w0rd"


@dataclass
class Outside:
    """What the process talks to, and how it is set."""

    provider: RunningProvider
    mail: MailServer
    settings: dict[str, str]
    port: int
    cwd: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sell(self, reference: str = "order-1") -> str:
        body = sale(callback_url=f"{self.url}/callback?{OPTIONS}", reference=reference, random=Random(reference))
        transaction_id: str = self.provider.provider.bill(body)["id"]
        return transaction_id

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Running]:
        arguments = ("serve", "--host", "127.0.0.1", "--port", str(self.port))
        async with running(*arguments, settings=self.settings, cwd=self.cwd) as started:
            await answers(f"{self.url}/readyz", started)
            yield started

    async def listed(self) -> list[dict[str, object]]:
        status, out, err = await command("deliveries", "list", "--json", settings=self.settings, cwd=self.cwd)
        assert status == 0, err
        deliveries: list[dict[str, object]] = json.loads(out)
        return deliveries


async def closed(service: Running, outcome: str, count: int, *, within: float = 40) -> None:
    """Wait until the process has said of so many deliveries that they ended so."""
    async with asyncio.timeout(within):
        while sum(line["event"] == "delivery.closed" and line["outcome"] == outcome for line in said(service)) < count:
            await asyncio.sleep(0.05)


def said(service: Running) -> list[dict[str, Any]]:
    """Return the log so far; every line of it is JSON."""
    whole, _, _ = service.output.decode().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


@pytest.fixture
async def outside(database_url: str, tmp_path: Path) -> AsyncIterator[Outside]:
    with listen() as sock:
        port = sock.getsockname()[1]
        url = origin(sock)
    clock = MovedClock()
    server = MailServer(clock=clock, random=Random(7), credentials=("shop", PASSWORD))
    async with (
        open_provider(clock=clock, callback_schedule=(0.2,)) as provider,
        open_mail_server(server) as mail,
    ):
        settings = environment(provider, mail, public_url=url, database_url=database_url)
        settings |= {"DELIVERY_RETRY_DELAYS": "0.3,0.5", "DELIVERY_GIVE_UP_AFTER": "30", "DELIVERY_LEASE_SECONDS": "2"}
        yield Outside(provider=provider, mail=mail, settings=settings, port=port, cwd=tmp_path)


async def test_it_delivers_and_stops_cleanly_on_sigterm(outside: Outside) -> None:
    async with outside.serving() as service:
        transaction_id = outside.sell()
        await closed(service, "completed", 1)
        assert await service.stop() == 0
    (delivery,) = await outside.listed()
    assert (delivery["transaction_id"], delivery["progress"]) == (transaction_id, ["delivered", "captured"])
    events = [line["event"] for line in said(service) if line.get("transaction_id") == transaction_id]
    assert events == [
        "callback.received",
        "delivery.fetched",
        "delivery.sent",
        "delivery.fetched",
        "delivery.captured",
        "delivery.closed",
    ]


async def test_a_mail_under_way_is_finished_and_recorded_on_sigterm(outside: Outside) -> None:
    outside.mail.script.on(Phase.CONTENT, Behaviour(delay=1.5))
    async with outside.serving() as service:
        outside.sell()
        async with asyncio.timeout(20):
            while outside.mail.transactions == 0:
                await asyncio.sleep(0.01)
        assert await service.stop() == 0
    (delivery,) = await outside.listed()
    assert "delivered" in delivery["progress"]  # type: ignore[operator]
    assert len(outside.mail.inbox) == 1


async def test_a_taken_port_is_said_kindly(outside: Outside) -> None:
    async with outside.serving():
        arguments = ("serve", "--host", "127.0.0.1", "--port", str(outside.port))
        status, out, err = await command(*arguments, settings=outside.settings, cwd=outside.cwd)
    assert status == 1
    assert str(outside.port) in err
    assert "Traceback" not in out + err


async def test_nothing_personal_or_secret_gets_out(outside: Outside, database_url: str) -> None:
    provider = outside.provider.provider
    refused = "bounced.person@kunde.example"

    async with outside.serving() as service:
        one, two = outside.sell("order-1"), outside.sell("order-2")
        for transaction_id in (one, two):
            provider.edit(transaction_id, lambda document: document["billing_address"].update(email=refused))
        outside.mail.refuse(
            refused, f"550 5.1.1 <{refused}>: no such user {refused.upper()}, call +4799887766", times=1
        )
        await closed(service, "completed", 1)
        await closed(service, "failed", 1)
        await command("deliveries", "retry", one, two, "--yes", settings=outside.settings, cwd=outside.cwd)
        await closed(service, "completed", 2)
        assert await service.stop() == 0
    printed = [service.output.decode()]
    for arguments in (("list",), ("list", "--json"), ("show", one), ("show", one, "--json"), ("show", two, "--json")):
        status, out, err = await command("deliveries", *arguments, settings=outside.settings, cwd=outside.cwd)
        assert status == 0, err
        printed += [out, err]
    kept = stored(database_url)
    customer = provider.transaction(one)["customer"]
    secrets = [
        refused,
        refused.split("@", maxsplit=1)[0],
        "99887766",
        *(str(value) for value in customer.values()),
        *(str(provider.transaction(i)["billing_address"]["phone_number"]) for i in (one, two)),
        provider.keys.account.client_secret,
        provider.keys.signature_secret,
        *provider.keys._tokens,
        PASSWORD,
    ]
    for secret in filter(None, secrets):
        for text in (*printed, kept):
            assert secret.lower() not in text.lower(), secret
    assert "b***@kunde.example" in kept


def stored(database_url: str) -> str:
    """Return everything that the database holds, as text."""
    if database_url.startswith("sqlite"):
        path = Path(database_url.removeprefix("sqlite:///"))
        return "".join(file.read_bytes().decode("latin-1") for file in path.parent.glob(path.name + "*"))
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        rows = [connection.execute(f'SELECT * FROM "{name}"').fetchall() for (name,) in tables.fetchall()]
    return str(rows)
