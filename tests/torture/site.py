"""A merchant's whole site: a provider and a mail server that misbehave, a database, and the replicas between them."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from sqlalchemy import update

from service.clock import SystemClock
from service.delivery import Delivery, Outcome, Request
from service.serving import listen
from service.simulator.api import Running, open_provider
from service.simulator.faults import Faults
from service.simulator.mail import MailServer, open_mail_server
from service.simulator.sales import Buyer, sale
from service.store import SqlStore, open_store
from service.store.engines import engines
from service.store.tables import jobs
from tests import processes
from tests.processes import answers, running
from tests.promises import Witness, check
from tests.stage import OPTIONS, environment
from tests.torture import groups
from tests.torture.door import open_door
from tests.torture.peers import Peers, open_peers

SETTINGS = {
    "DELIVERY_RETRY_DELAYS": "0.3,0.6,1.2,2",
    "DELIVERY_LEASE_SECONDS": "3",
    "DELIVERY_UNCONFIRMED_DELAY": "1.5",
    "DELIVERY_UNCONFIRMED_RETRIES": "2",
    "DELIVERY_RECONCILE_EVERY": "5",
    "DELIVERY_STOP_GRACE": "3",
}
_SETTLE_SECONDS = 300
_ENDED = ("AUTHORIZATION_VOIDED", "DECLINED", "FAILED", "REFUNDED")  # what is so when found needs nothing done
_GROUPED = 0.25  # of the sales
_WITHOUT_MAIL = 0.05


@dataclass(slots=True, kw_only=True)
class Replica:
    """One process that is started again whenever it ends, for as long as `wanted`."""

    name: str
    arguments: tuple[str, ...]
    settings: dict[str, str]
    folder: Path
    ready: str | None = None  # where it says that it is
    wanted: bool = True
    started: int = 0
    process: asyncio.subprocess.Process | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)

    async def keep(self) -> None:
        """Run it, and again after each end; what it said goes to a file of its own."""
        while self.wanted:
            async with running(*self.arguments, settings=self.settings, cwd=self.folder) as it:
                self.process = it.process
                self.started += 1
                waiting = asyncio.create_task(self._wait_until_ready(it))
                await it.process.wait()
                waiting.cancel()
                self.up.clear()
            with (self.folder / f"{self.name}.log").open("ab") as log:
                log.write(it.output)

    async def _wait_until_ready(self, it: object) -> None:
        if self.ready is not None:
            await answers(self.ready, it, within=120)  # type: ignore[arg-type]
        self.up.set()

    def send(self, signum: signal.Signals) -> bool:
        """Send a signal if it runs; return whether it did."""
        if self.process is None or self.process.returncode is not None:
            return False
        self.process.send_signal(signum)
        return True


@dataclass(slots=True, kw_only=True)
class Site:
    """Everything of one merchant."""

    name: str
    random: Random
    running: Running
    mail: MailServer
    faults: Faults
    replicas: list[Replica]
    store: SqlStore  # this process's own: one more that works on the record
    witness: Witness
    peers: Peers
    url: str
    database_url: str
    sold: list[str] = field(default_factory=list)
    bought: list[str] = field(default_factory=list)  # those of the sold that are billed together

    async def sell(self) -> None:
        """Make a sale; the provider calls back in the background."""
        if self.random.random() < _GROUPED:
            callback_url = f"{self.url}/callback?{OPTIONS}"
            self.bought.append(groups.sell(self.running.provider, callback_url, len(self.bought), self.random))
            self.sold.append(self.bought[-1])
            return
        number = len(self.sold)
        buyer: Buyer = "business" if number % 3 else "consumer"
        channel = "merchant" if self.random.random() < 0.9 else "kravia"
        body = sale(
            callback_url=f"{self.url}/callback?{OPTIONS}",
            random=Random(number),
            buyer=buyer,
            channel=channel,
            reference=f"order-{number}",
        )
        billed = body["session"]["order"]["billing_address"]
        billed["email"] = f"buyer{number}@customer.example"
        billed["phone_number"] = f"+47912{number:05d}"
        if self.random.random() < _WITHOUT_MAIL:
            del billed["email"]
        # Drawing a PDF takes milliseconds of this one thread; that is the price of a real one.
        self.sold.append(self.running.provider.bill(body)["id"])

    async def settle(self, say: Callable[[str], None]) -> tuple[Delivery, ...]:
        """Let everybody come to rest; return the record. Raises `AssertionError` when they do not."""
        try:
            return await self._settle(say)
        except TimeoutError:
            raise AssertionError(f"it does not settle: {await self._unsettled()}") from None

    async def _settle(self, say: Callable[[str], None]) -> tuple[Delivery, ...]:
        self.faults.clear()
        self.peers.mend()
        async with asyncio.timeout(_SETTLE_SECONDS):
            for replica in self.replicas:
                replica.send(signal.SIGCONT)
                await replica.up.wait()
            await self.running.caller.idle()
            await self._reconcile()
            await self.bill()
            await self.peers.told()
            before = 0
            while left := len(await self._unsettled()):
                if left != before:
                    say(f"{self.name}: {left} of {len(self.sold)} not settled yet")
                before = left
                await asyncio.sleep(2)
                await self.look_at_purchases()
                await self._decide()
                await self._find_out()
                await self.peers.told()
        return await self._all()

    async def _find_out(self) -> None:
        provider = self.running.provider
        await self.peers.find_out(self.store, provider.account_id, await self._all(), provider.clock)

    async def _decide(self) -> None:
        """When nothing else is open, have a person stop the purchases that wait for what does not come by itself.

        Their invoice needs a person, or the provider bills them no more: a part of them was captured by someone else.
        """
        found = await groups.invoices(self.store, await self.store.known(self.bought))
        stuck = {id_ for invoice, on in found.values() if invoice.outcome is Outcome.FAILED for id_ in on}
        transactions = self.running.provider.transactions
        stuck |= {id_ for id_ in self.bought if transactions[id_]["status"] == "PARTIALLY_CAPTURED"}
        waiting = {delivery.id for delivery in await self._all() if delivery.outcome is Outcome.OPEN}
        if not waiting <= stuck:
            return
        for id_ in waiting:
            at = self.running.provider.clock.now()
            await self.store.cancel(id_, Request(by="torture", at=at, reason="its invoice is not to be had"))

    async def bill(self) -> None:
        """Have what was bought until now billed, and one of it looked at."""
        bills = self.running.provider.bill_due()
        await self._look([self.random.choice(bill.transactions) for bill in bills])

    async def look_at_purchases(self) -> None:
        """Have those looked at that are open."""
        known = await self.store.known(self.bought)
        await self._look([delivery.id for delivery in known if delivery.outcome is Outcome.OPEN])

    async def _look(self, transaction_ids: list[str]) -> None:
        provider = self.running.provider
        await groups.look(self.store, provider.account_id, transaction_ids, provider.clock.now())

    async def _all(self) -> tuple[Delivery, ...]:
        single = await self.store.known(self.sold)
        found = await groups.invoices(self.store, await self.store.known(self.bought))
        return (*single, *(delivery for delivery, _ in found.values()))

    async def _reconcile(self) -> None:
        """Have an operator look for what nobody told us of; purchases of last month are too old for the worker's look.

        In life they are found on the day they are made.
        """
        replica = self.replicas[0]
        since = (self.running.provider.clock.now() - groups.OLD_ENOUGH).date().isoformat()
        arguments = ("reconcile", "--since", since)
        status, _, error = await processes.command(*arguments, settings=replica.settings, cwd=replica.folder)
        assert status == 0, f"reconcile: {error}"

    async def _unsettled(self) -> list[str]:
        """Return what is still to be done, in words."""
        deliveries = await self._all()
        unknown = self._acknowledged() - {delivery.transaction_id for delivery in deliveries}
        waiting = (delivery for delivery in deliveries if delivery.outcome is Outcome.OPEN)
        told = [f"{delivery.id}, due {delivery.due_at}: {delivery.reason}" for delivery in waiting]
        return [*(f"{id_} is not in the record" for id_ in sorted(unknown)), *told]

    def _acknowledged(self) -> set[str]:
        sold = set(self.sold)
        found = (
            a.url.partition("transaction_id=")[2].partition("&")[0]
            for a in self.running.caller.attempts
            if a.status == 200
        )
        return {id_ for id_ in found if id_ in sold}

    @property
    def counted(self) -> Counter[str]:
        """What came to the peers, and what they told."""
        arrived = Counter(f"text by {text.kind}" for text in self.peers.sms.inbox)
        arrived |= {"post": len(self.peers.erp.bodies), "mail": len(self.mail.inbox)}
        return arrived + Counter({f"report: {name}": count for name, count in self.peers.reports.items()})

    async def judge(self, deliveries: tuple[Delivery, ...]) -> None:
        """Raise `AssertionError` for a promise that was broken."""
        lost = self._acknowledged() - {delivery.transaction_id for delivery in deliveries}
        assert not lost, f"acknowledged and lost: {lost}"
        provider = self.running.provider
        missing = set(self.sold) - {delivery.transaction_id for delivery in await self.store.known(self.sold)}
        missing = {id_ for id_ in missing if provider.transactions[id_]["status"] not in _ENDED}
        assert not missing, f"sold, and not in the record after `reconcile`: {missing}"
        sends = {delivery.id: await self.store.sends(delivery.id) for delivery in deliveries}
        found = await groups.invoices(self.store, await self.store.known(self.bought))
        on_invoice = {id_: on for id_, (_, on) in found.items()}
        check(self.witness, deliveries, sends, provider.transactions, after_delivery=True, on_invoice=on_invoice)
        purchases = await self.store.known(self.bought)
        all_sends = [send for found in sends.values() for send in found]
        for purchase in purchases:
            all_sends += await self.store.sends(purchase.id)
        self.peers.judge(all_sends)
        entered = {purchase.transaction_id: purchase.received_at for purchase in purchases}
        groups.check_sums(provider.billing.bills, found, provider.transactions, entered)


@asynccontextmanager
async def open_site(
    name: str, database_url: str, folder: Path, random: Random, commands: tuple[str, ...]
) -> AsyncIterator[Site]:
    """Open a site with a replica for each of `commands` (`serve` or `worker`)."""
    await asyncio.to_thread(folder.mkdir)
    clock, faults, witness = SystemClock(), Faults(Random(random.random())), Witness()
    async with AsyncExitStack() as stack:
        ports = [_free_port() for command in commands if command == "serve"]
        url = await stack.enter_async_context(open_door(ports, Random(2)))
        peers, erp_url = await stack.enter_async_context(open_peers(witness, url, Random(random.random()), clock))
        server = MailServer(clock=clock, random=Random(1), faults=faults, arrived=peers.mail)
        mail = await stack.enter_async_context(open_mail_server(server))
        provider = open_provider(clock=clock, faults=faults, callback_schedule=(0.3, 1.0, 2.0, 5.0))
        running_ = await stack.enter_async_context(provider)
        running_.provider.captured = witness.capture
        running_.provider.billing.by_itself = False
        settings = environment(running_, mail, public_url=url, database_url=database_url) | SETTINGS | groups.SETTINGS
        settings |= peers.settings(folder, erp_url)
        store = await stack.enter_async_context(open_store(database_url, clock=clock))
        await asyncio.to_thread(_age, database_url)
        replicas = _replicas(commands, list(ports), settings, folder)
        for replica in replicas:
            stack.push_async_callback(_gone, asyncio.create_task(replica.keep()), replica)
        for replica in replicas:
            await replica.up.wait()
        yield Site(
            name=name,
            random=random,
            running=running_,
            mail=mail,
            faults=faults,
            replicas=replicas,
            store=store,
            witness=witness,
            peers=peers,
            url=url,
            database_url=database_url,
        )


def _replicas(commands: tuple[str, ...], ports: list[int], settings: dict[str, str], folder: Path) -> list[Replica]:
    made = []
    for number, command in enumerate(commands):
        port = ports.pop() if command == "serve" else None
        arguments = (command, "--host", "127.0.0.1", "--port", str(port)) if port else (command,)
        ready = f"http://127.0.0.1:{port}/readyz" if port else None
        replica = Replica(
            name=f"{command}-{number}", arguments=arguments, settings=settings, folder=folder, ready=ready
        )
        made.append(replica)
    return made


async def _gone(task: asyncio.Task[None], replica: Replica) -> None:
    replica.wanted = False
    replica.send(signal.SIGKILL)
    await task


def _age(database_url: str) -> None:
    """Let the record have been there for months: it knows what was bought then."""
    opened = engines(database_url)
    with opened.writer.connect() as connection, connection.begin():
        born_at = update(jobs).where(jobs.c.name == "birth")
        connection.execute(born_at.values(last_run_at=datetime.now(UTC) - groups.OLD_ENOUGH))
    opened.dispose()


def _free_port() -> int:
    with listen() as sock:
        port: int = sock.getsockname()[1]
        return port
