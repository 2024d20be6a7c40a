"""The whole pipeline as a state machine: whatever sales, faults, crashes, replicas and operators do to it.

Real HTTP, SMTP and SQLite, with two replicas on one record; the clock is moved. What is promised is design.md's list of
invariants. Processes that are killed are test_process.py's and the torture's.
"""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from service.app import App, open_app
from service.delivery import PROVIDER_LANE, Outcome, Request
from service.serving import listen, origin, serving
from service.settings import Need, load_settings
from service.simulator.api import Running, open_provider
from service.simulator.documents import Refusal, collection_begun
from service.simulator.faults import KINDS, Faults
from service.simulator.mail import Mail, MailServer, open_mail_server
from service.simulator.sales import sale
from tests.fakes import ACCOUNT, MovedClock
from tests.promises import Witness, check
from tests.stage import OPTIONS, environment

T = TypeVar("T")

# Those in which nothing answers take as long as a time-out; a connection that breaks is the same to the service.
NAMES = sorted(
    name for name in KINDS if not any(word in name for word in ("timeout", "silent", "slow", "callback-late"))
)
ACTS = ("retry", "resend", "cancel", "has it", "has it not", "release")
LANES = ("email", PROVIDER_LANE)
HOUR = 3600.0


class Promises(RuleBasedStateMachine):
    """One shop's days. What happens is noted in the order in which the outside world saw it."""

    order = "after_delivery"

    @initialize(personality=st.sampled_from(["current", "seed"]))
    def open(self, personality: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.witness = Witness()
        self.sold: list[str] = []
        self.run(self._open(personality))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _open(self, personality: Any) -> None:
        enter = self.stack.enter_async_context
        self.clock = MovedClock()
        self.faults = Faults(Random(5))
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        server = MailServer(clock=self.clock, random=Random(7), faults=self.faults, arrived=self.mail_arrived)
        self.mail = await enter(open_mail_server(server))
        sock = self.stack.enter_context(listen())
        self.url = origin(sock)
        provider = open_provider(
            personality=personality, clock=self.clock, callback_schedule=(0.01,), faults=self.faults
        )
        self.running: Running = await enter(provider)
        self.running.provider.captured = self.witness.capture
        env = environment(
            self.running, self.mail, public_url=self.url, database_url=f"sqlite:///{folder}/deliveries.db"
        )
        loaded = load_settings(env | {"DELIVERY_CAPTURE_ORDER": self.order}, need=Need.SERVE)
        self.replicas: list[App] = [
            await enter(open_app(loaded, clock=self.clock, jitter=lambda: 0.5)) for _ in range(2)
        ]
        await enter(serving(self.replicas[0].public, sock))

    def mail_arrived(self, mail: Mail) -> None:
        self.witness.mail(mail)

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule(buyer=st.sampled_from(["business", "consumer"]), channel=st.sampled_from(["merchant"] * 3 + ["kravia"]))
    def sell(self, buyer: Any, channel: str) -> None:
        number = len(self.sold)
        callback_url = f"{self.url}/callback?{OPTIONS}"
        body = sale(callback_url=callback_url, random=Random(number), buyer=buyer, channel=channel)
        body["session"]["order"]["billing_address"]["email"] = f"buyer{number}@customer.example"
        self.sold.append(self.run(self._bill(body)))

    async def _bill(self, body: Any) -> str:
        transaction_id: str = self.running.provider.bill(body)["id"]
        await self.running.caller.idle()
        return transaction_id

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 4))
    def break_something(self, name: str, count: int) -> None:
        self.faults.on(name, count=count)

    @rule()
    def work(self) -> None:
        self.run(self._work())

    @rule(after=st.sampled_from([1.0, 61.0, 301.0, 901.0, HOUR, 24 * HOUR]))
    def wait(self, after: float) -> None:
        self.clock.advance(after)

    @rule(ticks=st.integers(1, 400))
    def die(self, ticks: int) -> None:
        """Stop both replicas in the middle of whatever they do; their leases run out."""
        self.run(self._die(ticks))
        self.clock.advance(61)

    async def _die(self, ticks: int) -> None:
        working = asyncio.ensure_future(self._work())
        for _ in range(ticks):
            await asyncio.sleep(0)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working

    @precondition(lambda self: self.sold)
    @rule(data=st.data(), deed=st.sampled_from(["void", "pay", "call"]))
    def somebody_else(self, data: st.DataObject, deed: str) -> None:
        transaction_id = data.draw(st.sampled_from(self.sold))
        self.run(self._somebody_else(transaction_id, deed))

    async def _somebody_else(self, transaction_id: str, deed: str) -> None:
        provider = self.running.provider
        with suppress(Refusal):
            if deed == "call":
                provider.tell(provider.transaction(transaction_id))
            else:
                (provider.void if deed == "void" else provider.pay)(transaction_id)
        await self.running.caller.idle()

    @precondition(lambda self: self.sold)
    @rule(data=st.data(), act=st.sampled_from(ACTS))
    def operate(self, data: st.DataObject, act: str) -> None:
        self.run(self._operate(data.draw(st.sampled_from(self.sold)), act))

    async def _operate(self, transaction_id: str, act: str) -> None:
        store, request = self.replicas[1].store, Request(by="kari", at=self.clock.now(), reason="asked to")
        with suppress(KeyError):  # nobody told us of it yet
            if act.startswith("has it"):
                delivery = await store.resolve(transaction_id, request, delivered=act == "has it")
                self.witness.stated |= {transaction_id} if delivery.stated_round is not None else set()
            else:
                await getattr(store, act)(transaction_id, request)
        if act in ("resend", "has it not"):
            self.witness.asked[transaction_id] += 1

    @rule(lane=st.sampled_from(LANES), what=st.sampled_from(["pause", "resume", "fault"]))
    def hold(self, lane: str, what: str) -> None:
        store = self.replicas[1].store
        if what == "resume":
            self.run(store.resume(ACCOUNT, lane))
        elif what == "pause":
            self.run(store.pause(ACCOUNT, lane, "held", by="kari", probe_in=None))
        else:
            self.run(store.pause(ACCOUNT, lane, "at fault", by=None, probe_in=60))

    @precondition(lambda self: self.sold)
    @rule(ticks=st.integers(1, 400), data=st.data(), act=st.sampled_from(ACTS))
    def meddle(self, ticks: int, data: st.DataObject, act: str) -> None:
        """An operator acts in the middle of a pass."""
        self.run(self._meddle(ticks, data.draw(st.sampled_from(self.sold)), act))

    async def _meddle(self, ticks: int, transaction_id: str, act: str) -> None:
        working = asyncio.ensure_future(self._work())
        for _ in range(ticks):
            await asyncio.sleep(0)
        await self._operate(transaction_id, act)
        await working

    @rule(ticks=st.integers(1, 400))
    def outlast_the_lease(self, ticks: int) -> None:
        """A lease runs out while its owner still works, and the other replica takes over."""
        self.run(self._outlast_the_lease(ticks))

    async def _outlast_the_lease(self, ticks: int) -> None:
        working = asyncio.ensure_future(self.replicas[0].worker.drain())
        for _ in range(ticks):
            await asyncio.sleep(0)
        self.clock.advance(61)
        await self.replicas[1].worker.drain()
        await working
        await self.running.caller.idle()

    async def _work(self) -> None:
        await asyncio.gather(*(app.worker.drain() for app in self.replicas))
        await self.running.caller.idle()

    # --- what must be true in the end ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.run(self._end())
        finally:
            self.run(self.stack.aclose())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()

    async def _end(self) -> None:
        self.faults.clear()
        await self.running.caller.idle()
        store = self.replicas[0].store
        for lane in LANES:
            await store.resume(ACCOUNT, lane)
        for _ in range(60):
            await self._work()
            if not any(d.outcome is Outcome.OPEN for d in await store.known(self.sold)):
                break
            self.clock.advance(6 * HOUR)
        deliveries = await store.known(self.sold)
        answered = [attempt.url for attempt in self.running.caller.attempts if attempt.status == 200]
        acknowledged = {id_ for id_ in self.sold if any(id_ in url for url in answered)}
        assert acknowledged <= {delivery.transaction_id for delivery in deliveries}, "acknowledged, and lost"
        sends = {delivery.id: await store.sends(delivery.id) for delivery in deliveries}
        transactions = self.running.provider.transactions
        check(self.witness, deliveries, sends, transactions, after_delivery=self.order == "after_delivery")


class CapturedFirst(Promises):
    """The same with the capture first: no mail goes out before collection has begun."""

    order = "before_delivery"

    def mail_arrived(self, mail: Mail) -> None:
        super().mail_arrived(mail)
        (recipient,) = mail.recipients
        theirs = [
            t for t in self.running.provider.transactions.values() if recipient in str(t.get("billing_address", ""))
        ]
        assert any(collection_begun(t) for t in theirs), f"{recipient} has a mail and nothing of theirs is collected"


@pytest.mark.parametrize("machine", [Promises, CapturedFirst])
def test_the_promises_hold_whatever_happens(machine: type[Promises]) -> None:
    some = settings(
        max_examples=15,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],  # the torture's seeds look for more; shrinking takes minutes
    )
    run_state_machine_as_test(machine, settings=some)
