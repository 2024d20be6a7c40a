"""Grouped purchases as a state machine: whatever is bought, billed, voided, called, broken and killed, in any order."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from service.decide import IN_DOUBT
from service.delivery import (
    AccountFailure,
    CaptureOrder,
    DeliveryFailure,
    Interval,
    Kind,
    Member,
    Members,
    Outcome,
    Party,
    Settled,
    Standing,
    TransientFailure,
    UnconfirmedFailure,
)
from service.grouping import period_of
from tests.conftest import emptied
from tests.fakes import ACCOUNT
from tests.test_grouped import a_purchase
from tests.workbench import RULES, Bench, open_bench

HOUR, DAY = 3600.0, 86400.0
FAILURES = (TransientFailure, UnconfirmedFailure, AccountFailure)


class Groups(RuleBasedStateMachine):
    """Three customers of one merchant, and a provider that bills them when it likes."""

    order = CaptureOrder.AFTER_DELIVERY
    empty: Callable[[], str] | None = None  # returns an empty PostgreSQL database's URL; SQLite where there is none

    @initialize()
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        url = self.empty() if self.empty else f"sqlite:///{folder}/d.db"
        self.bench: Bench = self.run(self.stack.enter_async_context(open_bench(url)))
        self.bench.rules = replace(RULES, order=self.order)
        self.bought: list[str] = []
        self.numbers: dict[str, str] = {}  # of each purchase that was billed

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @rule(customer=st.sampled_from("abc"), currency=st.sampled_from(["NOK", "NOK", "SEK"]), called=st.booleans())
    def buy(self, customer: str, currency: str, called: bool) -> None:
        party = Party(business_name=customer, organization_number="1", country="NO", email=f"{customer}@shop.example")
        name = f"p{len(self.bought)}"
        now = self.bench.clock.now()
        self.bench.payments.add(a_purchase(name, now, billing=party, currency=currency))
        self.bought.append(f"{ACCOUNT}.{name}")
        if called:
            self.run(self.bench.arrive(self.bought[-1]))

    @precondition(lambda self: self.bought)
    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        self.run(self.bench.arrive(data.draw(st.sampled_from(self.bought)), event=data.draw(st.booleans())))

    @precondition(lambda self: self.bought)
    @rule(data=st.data(), all_at_once=st.booleans())
    def bill(self, data: st.DataObject, all_at_once: bool) -> None:
        """Bill a customer's month, all of it or what the provider comes by first."""
        first = self.bench.payments.transactions[data.draw(st.sampled_from(self.bought))]
        key = self._key(first.id)
        number = "N-" + "-".join(map(str, key))
        for name in [name for name in self.bought if self._key(name) == key and name not in self.numbers]:
            standing = self.bench.payments.transactions[name].standing
            if standing is Standing.AUTHORIZED and (all_at_once or name == first.id):
                self.numbers[name] = number
                url = f"https://checkout.dintero.com/{number}"
                self.bench.payments.change(name, invoice_number=number, invoice_url=url)

    def _key(self, name: str) -> tuple[object, ...]:
        found = self.bench.payments.transactions[name]
        assert found.billing is not None
        assert found.purchased_at is not None
        start = period_of(found.purchased_at, Interval.MONTHLY, RULES.timezone).start
        return (found.billing.business_name, found.currency, start)

    @precondition(lambda self: self.bought)
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.bought))
        self.bench.payments.change(name, standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
        self.run(self.bench.arrive(name, event=True))

    @rule(verb=st.sampled_from(["read", "resolve", "invoice", "capture"]), failure=st.sampled_from(FAILURES))
    def break_the_provider(self, verb: str, failure: type[DeliveryFailure]) -> None:
        if failure is UnconfirmedFailure and verb != "capture":
            return
        self.bench.payments.plan.setdefault(verb, []).append(failure("broken"))

    @rule(failure=st.sampled_from(FAILURES))
    def break_the_relay(self, failure: type[DeliveryFailure]) -> None:
        self.bench.channel.plan.append(failure("broken"))

    @rule()
    def work(self) -> None:
        self.run(self._work())

    async def _work(self) -> None:
        await asyncio.gather(*(self.bench.worker().drain() for _ in range(2)))

    @rule(ticks=st.integers(1, 300))
    def die(self, ticks: int) -> None:
        self.run(self._die(ticks))
        self.bench.clock.advance(61)

    async def _die(self, ticks: int) -> None:
        working = asyncio.ensure_future(self._work())
        for _ in range(ticks):
            await asyncio.sleep(0)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working

    @rule(after=st.sampled_from([61.0, 901.0, HOUR, DAY, 16 * DAY]))
    def wait(self, after: float) -> None:
        self.bench.clock.advance(after)

    # --- what is promised ---------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        try:
            self.run(self._settle())
            self.run(self._check())
        finally:
            self.run(self.stack.aclose())
            self.loop.close()

    async def _settle(self) -> None:
        """Nothing goes wrong any more, and every callback has come; the months go by."""
        self.bench.payments.plan.clear()
        self.bench.channel.plan.clear()
        for name in self.bought:
            await self.bench.arrive(name)
        for after in (61.0, 301.0, 901.0, 901.0, HOUR, HOUR, *[DAY] * 3, *[9 * DAY] * 6, DAY, DAY, HOUR, HOUR):
            self.bench.clock.advance(after)
            await self._work()

    async def _check(self) -> None:
        members = await self.bench.store.members(Members())
        assert all(count == 1 for count in Counter(m.purchase.transaction_id for m in members).values())
        for group in {m.purchase.group for m in members}:
            _of_one_kind([m for m in members if m.purchase.group == group])
        invoices = [d for d in await self.bench.store.listing() if d.kind is Kind.GROUPED]
        for invoice in invoices:
            of_it = [m for m in members if m.purchase.invoice_id == invoice.id]
            sends = await self.bench.store.sends(invoice.id)
            accepted = [send for send in sends if send.outcome is Settled.ACCEPTED]
            assert len(accepted) <= 1
            assert not [send for send in sends if send.outcome is Settled.OPEN]
            doubtful = [send for send in sends if send.outcome in IN_DOUBT]
            assert len(doubtful) <= RULES.unconfirmed_retries + 1
            if invoice.outcome is Outcome.COMPLETED:
                assert accepted
            assert invoice.outcome is not Outcome.OPEN, invoice
            billed = {name for name, number in self.numbers.items() if invoice.invoice_number == number}
            assert {m.purchase.transaction_id for m in of_it} <= billed
            for member in of_it if self.order is CaptureOrder.AFTER_DELIVERY else []:
                for capture in await self.bench.store.captures(member.delivery.id):
                    sent_at = accepted[0].settled_at if accepted else None
                    assert sent_at, "captured, and nothing was delivered"
                    assert capture.begun_at >= sent_at - timedelta(milliseconds=5), "captured before it was delivered"
        for member in members:
            await self._captured_at_most_once(member)

    async def _captured_at_most_once(self, member: Member) -> None:
        begun = [e for e in self.bench.payments.transactions[member.delivery.id].collection.events if e.success]
        assert len(begun) <= 1
        if begun and self.order is CaptureOrder.AFTER_DELIVERY:
            assert member.delivery.delivered_at is not None
        assert member.delivery.outcome is not Outcome.OPEN, member.delivery


def _of_one_kind(members: list[Member]) -> None:
    kinds = {
        (m.purchase.business_name, m.purchase.customer_reference, m.purchase.currency, m.purchase.period_start)
        for m in members
    }
    assert len(kinds) == 1


class Before(Groups):
    order = CaptureOrder.BEFORE_DELIVERY


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


@pytest.mark.parametrize("machine", [Groups, Before])
def test_promises_are_kept(machine: type[Groups]) -> None:
    run_state_machine_as_test(machine, settings=examples(15))


@pytest.mark.parametrize("machine", [Groups, Before])
def test_promises_are_kept_on_postgresql(machine: type[Groups], postgres_database: str) -> None:
    class OnPostgres(machine):  # type: ignore[misc,valid-type]
        empty = staticmethod(lambda: emptied(postgres_database))

    run_state_machine_as_test(OnPostgres, settings=examples(2))
