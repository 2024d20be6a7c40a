"""The world around a real process: a provider and a mail server that a test directs, and the record from outside."""

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from service.clock import SystemClock
from service.delivery import Delivery, Outcome
from service.serving import listen, origin
from service.simulator.api import Running as RunningProvider
from service.simulator.api import open_provider
from service.simulator.deeds import How, Phase
from service.simulator.faults import Fault, Faults, Kind
from service.simulator.mail import Mail, MailServer, open_mail_server
from service.simulator.provider import Provider
from service.simulator.sales import sale
from service.store import SqlStore, open_store
from tests.processes import Running, answers, running
from tests.promises import Witness, check
from tests.stage import environment

HELD = 1e9
"""Seconds that end when the test says so: `Gate.open`."""
_HOUR = 3600 * 10**6


class Gate(SystemClock):
    """The clock of provider and mail server, by which whoever sleeps for `HELD` sleeps until `open` is called."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Wake those who wait now; who comes later waits for the next time."""
        self._opened.set()
        self._opened = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        await (self._opened.wait() if seconds == HELD else super().sleep(seconds))


@dataclass(slots=True, kw_only=True)
class Outside:
    """What one process talks to, what it is started with, and what the test saw."""

    running: RunningProvider
    mail: MailServer
    faults: Faults
    gate: Gate
    witness: Witness
    store: SqlStore  # the test's own, to read by
    settings: dict[str, str]
    database_url: str
    port: int
    cwd: Path
    sold: list[str] = field(default_factory=list)

    @property
    def provider(self) -> Provider:
        return self.running.provider

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sell(self, name: str) -> str:
        """Make a sale to somebody of this name; nobody has heard of it before the test waits for something."""
        body = sale(callback_url=f"{self.url}/callback?report_error=true", reference=name, random=Random(name))
        body["session"]["order"]["billing_address"]["email"] = address(name)
        transaction_id: str = self.provider.bill(body)["id"]
        self.sold.append(transaction_id)
        return transaction_id

    async def keep(self, name: str, at: str, how: How, *, once_mailed: bool = False) -> str:
        """Make a sale and wait until `how` has struck it at a point, `once_mailed` not before its mail has arrived."""
        id_ = self.sell(name)
        where = {
            "read_transaction": id_,
            "capture": id_,
            "cdn": next(file for file, owner in self.provider.file_owners.items() if owner == id_),
            Phase.RCPT: address(name),
            Phase.DATA: address(name),
            Phase.CONTENT: address(name),
        }.get(at, "")
        fault, kind = Fault(name=name, count=1, where=where), Kind(about=name, at=(at,), how=how)

        def arrived(mail: Mail) -> None:
            self.witness.mail(mail)
            if address(name) in mail.recipients:
                self.faults.commit(fault, kind)

        if once_mailed:
            self.mail.arrived = arrived
        else:
            self.faults.commit(fault, kind)
        await until(lambda: self.faults.struck[name])
        self.mail.arrived = self.witness.mail
        return id_

    def copies(self, name: str) -> list[Mail]:
        """Return what came for somebody."""
        return [mail for mail in self.mail.inbox if address(name) in mail.recipients]

    def told(self, transaction_id: str) -> list[int | None]:
        """Return the answers to the callbacks about a transaction."""
        about = f"transaction_id={transaction_id}&"
        return [attempt.status for attempt in self.running.caller.attempts if about in attempt.url]

    @asynccontextmanager
    async def serving(self, *options: str) -> AsyncIterator[Running]:
        arguments = ("serve", "--host", "127.0.0.1", "--port", str(self.port), *options)
        async with running(*arguments, settings=self.settings, cwd=self.cwd) as started:
            await answers(f"{self.url}/readyz", started, within=60)
            yield started

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Running]:
        """Run a worker; it may not have begun yet."""
        async with running("worker", settings=self.settings, cwd=self.cwd) as started:
            yield started

    async def delivery(self, transaction_id: str) -> Delivery | None:
        return next(iter(await self.store.known([transaction_id])), None)

    async def settled(self, ids: Iterable[str] | None = None, *, within: float = 90) -> tuple[Delivery, ...]:
        """Wait until these sales, or all of them, are closed; return their deliveries."""
        wanted = list(self.sold if ids is None else ids)
        found: tuple[Delivery, ...] = ()
        try:
            async with asyncio.timeout(within):
                while len(found) < len(wanted) or any(d.outcome is Outcome.OPEN for d in found):
                    await asyncio.sleep(0.05)
                    found = await self.store.known(wanted)
        except TimeoutError:
            left = [d for d in found if d.outcome is Outcome.OPEN]
            raise AssertionError(f"{len(wanted) - len(found)} not entered, not settled: {left}") from None
        return found

    async def judge(self, *, after_delivery: bool = True) -> None:
        """Raise `AssertionError` for a promise that was broken; everything has been settled."""
        deliveries = await self.settled()
        sends = {delivery.id: await self.store.sends(delivery.id) for delivery in deliveries}
        check(self.witness, deliveries, sends, self.provider.transactions, after_delivery=after_delivery)


def address(name: str) -> str:
    return f"{name.replace(' ', '-')}@customer.example"


async def kill(service: Running) -> None:
    """End a process as a power cut does."""
    service.process.send_signal(signal.SIGKILL)
    await service.process.wait()


async def until(happened: Callable[[], object], *, within: float = 60) -> None:
    """Wait for something to be true."""
    async with asyncio.timeout(within):
        while not happened():
            await asyncio.sleep(0.01)


@contextmanager
def record(database_url: str) -> Iterator[Callable[[str], Any]]:
    """Open the database behind the service's back; yield what executes a statement, each committed at once."""
    if database_url.startswith("sqlite"):
        path = database_url.removeprefix("sqlite:///")
        connection = sqlite3.connect(path, timeout=20, isolation_level=None)
        try:
            yield connection.execute
        finally:
            connection.close()
    else:
        with psycopg.connect(database_url, autocommit=True) as opened:
            yield lambda statement: opened.execute(statement.encode())


def an_hour_passes(database_url: str, ids: Iterable[str]) -> None:
    """Make everything in the record of these deliveries an hour older: leases, delays and doubts run out by it."""
    listed = ", ".join(f"'{i}'" for i in ids)
    with record(database_url) as execute:
        times = ("leased_until", "due_at", "no_send_before")
        earlier = ", ".join(f"{name} = {name} - {_HOUR}" for name in times)
        execute(f"UPDATE deliveries SET {earlier} WHERE id IN ({listed})")
        for table in ("sends", "captures"):
            moved = f"UPDATE {table} SET begun_at = begun_at - {_HOUR} WHERE delivery_id IN ({listed})"
            execute(moved)


@asynccontextmanager
async def open_outside(database_url: str, cwd: Path, **settings: str) -> AsyncIterator[Outside]:
    """Open everything around a process that is not started yet; `settings` are without their prefix."""
    with listen() as sock:
        port, url = sock.getsockname()[1], origin(sock)
    gate, faults, witness = Gate(), Faults(Random(11)), Witness()
    server = MailServer(clock=gate, random=Random(7), faults=faults, arrived=witness.mail, credentials=("shop", "sm7p"))
    async with (
        open_provider(clock=gate, faults=faults, callback_schedule=(0.2, 0.3, 0.5, 1, 1, 2)) as provider,
        open_mail_server(server) as mail,
        open_store(database_url, clock=SystemClock()) as store,
    ):
        provider.provider.captured = witness.capture
        given = environment(provider, mail, public_url=url, database_url=database_url)
        given |= {"DELIVERY_RETRY_DELAYS": "0.2,0.4,0.8"}
        yield Outside(
            running=provider,
            mail=mail,
            faults=faults,
            gate=gate,
            witness=witness,
            store=store,
            settings=given | {f"DELIVERY_{name}": value for name, value in settings.items()},
            database_url=database_url,
            port=port,
            cwd=cwd,
        )
