"""Channels in order as a state machine: refusals, lost answers, reports, deaths and people, and what each peer took.

The peers are ours and keep the truth. Processes die at any call of theirs, before it or after it took effect.
A walk is drawn from its seed: `CHANNEL_WALKS=500 CHANNEL_SEED=7` walks longer, from another beginning.
"""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from random import Random
from typing import Any, cast

import pytest

from service.decide import IN_DOUBT
from service.delivery import (
    PROVIDER_LANE,
    AccountFailure,
    CaptureAnswer,
    CaptureRequest,
    Claim,
    Composed,
    Delivery,
    Fate,
    Guarantee,
    Outcome,
    Purpose,
    Receipt,
    RecipientRefused,
    Report,
    Reported,
    Request,
    Send,
    Settled,
    Standing,
    Store,
    TransientFailure,
    UnconfirmedFailure,
)
from service.metrics import Metrics
from service.reporting import Reporter
from service.routing import Routes, read_routes
from service.store import open_store
from service.worker import Worker
from tests.conftest import emptied
from tests.fakes import ACCOUNT, FakeChannel, FakeInspector, FakePayments, FakeRenderer, MovedClock, a_transaction
from tests.promises import DENIED
from tests.workbench import RULES, Bench

HOUR, DAY = 3600.0, 86400.0
FALLBACK_AFTER = 2 * HOUR
NAMES = ("email", "sms-twilio", "http")
ROUTES = read_routes(
    """
[[rule]]
name = "the law wants it there"
currency = "SEK"
channels = ["sms-twilio"]
exclusive = true

[[rule]]
name = "a copy for the books"
currency = "DKK"
channels = ["email", "sms-twilio"]
courtesy = ["http"]
""",
    default=NAMES,
    known=NAMES,
)
OF_CURRENCY = {"NOK": NAMES, "SEK": ("sms-twilio",), "DKK": ("email", "sms-twilio")}
WAYS = ("lost", "lost before", "refused", "later", "ours")
CALLS = ("begin_send", "send", "send", "settle_send", "begin_capture", "capture", "settle_capture", "save")
BY = ("key", "message id", "remote id")
ACTS = ("retry", "resend", "cancel", "has it", "has it not")


class Killed(BaseException):
    """What a dead process meets at each call; nothing of ours catches it."""


@dataclass(eq=False)
class Process:
    """One that dies at a call, before it or after it took effect; then it does nothing more."""

    at: str = ""  # "before send", "after settle_send"
    dead: bool = False

    def tick(self, now: str) -> None:
        self.dead |= now == self.at
        if self.dead:
            raise Killed


class Mortal:
    """The store, a peer or the provider as one process has them."""

    def __init__(self, inner: object, process: Process) -> None:
        self._inner = inner
        self._process = process

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def call(*args: object, **options: object) -> object:
            self._process.tick(f"before {name}")
            answer = await found(*args, **options)
            self._process.tick(f"after {name}")
            return answer

        return call


class Watched:
    """A store that looks, at each intent, whether somebody has it already, or its channel gave it back.

    What is wrong goes to `broken`: raised there, it would be one more error that the worker lives with.
    """

    def __init__(self, inner: Store, broken: list[str]) -> None:
        self._inner = inner
        self._broken = broken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def begin_send(self, claim: Claim, send: Send, delivery: Delivery | None = None) -> None:
        before = await self._against(send)
        await self._inner.begin_send(claim, send, delivery)
        if always := before & await self._against(send):  # else it came, or went, meanwhile
            self._broken.append(f"{send} was begun beside {sorted(always)}")

    async def _against(self, send: Send) -> set[str]:
        """Return what forbids a send: each that its round's customer has, and each that its channel gave back."""
        (delivery,) = await self._inner.known([send.delivery_id])
        others = [one for one in await self._inner.sends(send.delivery_id) if one.round == send.round >= 0]
        found = {one.id for one in others if one.outcome is Settled.ACCEPTED and one.id != send.id}
        found |= {one.id for one in others if one.outcome is Settled.BOUNCED and one.channel == send.channel}
        return found | ({"a person's word"} if delivery.stated_round == send.round else set())


class Alarms(Metrics):
    """Metrics that keep the alarms' names."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def alarm(self, name: str, cases: int = 1) -> None:
        super().alarm(name, cases)
        self.heard.append(name)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A message as its peer took it."""

    channel: str
    key: str
    remote_id: str
    told: bool  # whether it was answered


class Peer(FakeChannel):
    """The other side of a channel: what it took, and what it makes of the next messages."""

    def __init__(self, name: str, guarantee: Guarantee, *, reports: bool) -> None:
        super().__init__(name, guarantee=guarantee, reports=reports)
        self.taken: list[Taken] = []
        self.asked: list[str] = []
        self.ways: list[str] = []
        self.gate: asyncio.Event | None = None
        self.after = False  # whether it is slow only to answer
        self.reached = asyncio.Event()

    async def send(self, composed: Composed) -> Receipt:
        way = self.ways.pop(0) if self.ways else "taken"
        key = composed.message_id.removeprefix("<").partition("@")[0]
        self.asked.append(key)
        if not self.after:
            await self._pass_the_gate()
        if way == "refused":
            raise RecipientRefused("550 5.1.1 no such user")
        if way == "later":
            raise TransientFailure("451 4.7.1 try later")
        if way == "ours":
            raise AccountFailure("535 5.7.8 who are you?")
        if way == "lost before":
            raise UnconfirmedFailure("no answer")
        remote_id = self._take(key, told=way == "taken")
        if self.after:
            await self._pass_the_gate()
        if way == "lost":
            raise UnconfirmedFailure("no answer")
        return Receipt(answer="250 2.0.0 queued", remote_id=remote_id)

    async def _pass_the_gate(self) -> None:
        if self.gate:
            self.reached.set()
            await self.gate.wait()

    def _take(self, key: str, *, told: bool) -> str:
        again = next((one for one in self.taken if one.key == key), None)
        if again and self.guarantee is Guarantee.IDEMPOTENT:
            return again.remote_id
        self.taken.append(Taken(channel=self.name, key=key, remote_id=f"{self.name}-{len(self.taken) + 1}", told=told))
        return self.taken[-1].remote_id


class Provider(FakePayments):
    """Captures as the real one; looks at the record at the moment of each."""

    def __init__(self, clock: MovedClock) -> None:
        super().__init__(clock)
        self.ways: list[str] = []
        self.looked: Callable[[str], Coroutine[Any, Any, None]]

    async def capture(self, request: CaptureRequest) -> CaptureAnswer:
        way = self.ways.pop(0) if self.ways else "taken"
        if way == "later":
            raise TransientFailure("503")
        if way == "lost before":
            raise UnconfirmedFailure("no answer")
        if not self.transactions[request.transaction_id].collection.begun:
            await self.looked(request.transaction_id)
        answer = await super().capture(request)
        if way == "lost":
            raise UnconfirmedFailure("no answer")
        return answer


@dataclass(kw_only=True)
class Story:
    """What was done to one delivery on purpose."""

    currency: str
    asked: Counter[str] = field(default_factory=Counter)
    restarts: Counter[int] = field(default_factory=Counter)  # how often a person had a round begun again, by round
    stated: bool = False


class Channels:
    """One shop with three ways to its customers."""

    def __init__(self, seed: str, url: str | None = None) -> None:
        self.random = Random(seed)
        self.url = url  # an empty PostgreSQL database's; SQLite where there is none

    def open(self) -> None:
        delay = self.random.choice([0.0, 0.0, 1800.0])
        sms = self.random.choice([Guarantee.AT_LEAST_ONCE, Guarantee.AT_LEAST_ONCE, Guarantee.AT_MOST_ONCE])
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        url = self.url or f"sqlite:///{folder}/d.db"
        self.clock = MovedClock()
        self.run(self._open(url))
        self.provider = Provider(self.clock)
        self.provider.looked = self._look_at_capture
        self.peers = {
            "email": Peer("email", Guarantee.AT_LEAST_ONCE, reports=False),
            "sms-twilio": Peer("sms-twilio", sms, reports=True),
            "http": Peer("http", Guarantee.IDEMPOTENT, reports=False),
        }
        self.terms = replace(
            RULES,
            give_up_after=10 * DAY,
            fallback_after=FALLBACK_AFTER,
            capture_delay=delay,
            cancel_notice=True,
        )
        self.stories: dict[str, Story] = {}
        self.reports: list[Report] = []  # those on their way
        self.told: list[Report] = []
        self.events = count(1)
        self.recorded: set[str] = set()  # events whose send was known
        self.broken: list[str] = []  # what was seen to be wrong inside of a worker
        self.alarms = Alarms()
        self.reporter = Reporter(store=self.stores[1], metrics=self.alarms, account_id=ACCOUNT)

    async def _open(self, url: str) -> None:
        enter = self.stack.enter_async_context
        first = await enter(open_store(url, clock=self.clock, patience=0))
        self.stores: list[Store] = [
            first,
            await enter(open_store(url, clock=self.clock, patience=0, migrate=False)),
        ]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def replica(self, number: int, process: Process) -> Worker:
        """Return a new process's worker."""
        email, *others = (cast("FakeChannel", Mortal(self.peers[name], process)) for name in NAMES)
        bench = Bench(
            clock=self.clock,
            store=cast("Store", Mortal(Watched(self.stores[number], self.broken), process)),
            payments=cast("FakePayments", Mortal(self.provider, process)),
            channel=email,
            others=tuple(others),
            renderer=FakeRenderer(),
            inspector=FakeInspector(),
            rules=self.terms,
            routes=Routes(default=ROUTES.default, rules=ROUTES.rules),
        )
        return bench.worker()

    async def work(self, number: int, *, dies_at: str = "") -> None:
        """Let a replica do what is due, or as much of it as it lives for."""
        process = Process(at=dies_at)
        before = asyncio.all_tasks()
        with suppress(Killed):
            await self.replica(number, process).drain()
        if process.dead:
            left = asyncio.all_tasks() - before
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    # --- the walk -----------------------------------------------------------------------------------------------------

    def walk(self, steps: int) -> None:
        """Take so many steps at random; after each one the record explains what the peers took."""
        self.open()
        try:
            self.sell("NOK")
            for _ in range(steps):
                self.step()
                self.run(self._explained())
            self.run(self._end())
        finally:
            self.run(self.stack.aclose())
            self.run(self.loop.shutdown_default_executor())
            self.loop.close()

    def step(self) -> None:
        one, which = self.random.choice, self.random.randrange(2**16)
        waits = [61.0, 61.0, 301.0, 901.0, 1801.0, FALLBACK_AFTER / 2, FALLBACK_AFTER + 1, 7 * HOUR, DAY]
        fates = [Fate.DELIVERED, Fate.FAILED, Fate.FAILED, Fate.DEFERRED, Fate.UNKNOWN]
        deeds: list[tuple[int, Callable[[], None]]] = [
            (3, lambda: self.sell(one(["NOK", "NOK", "SEK", "DKK"]))),
            (4, lambda: self.break_a_channel(one(NAMES), self.random.choices(WAYS, k=self.random.randint(1, 3)))),
            (1, lambda: self.break_the_provider(one(["later", "lost", "lost before"]))),
            (4, self.both_work),
            (6, lambda: self.one_dies(f"{one(['before', 'after'])} {one(CALLS)}")),
            (3, lambda: self.wait(one(waits))),
            (
                3,
                lambda: self.be_slow(
                    one(NAMES), one([0.0, 0.0, *waits]), one([True, False]), one([None, *fates[:3]]), one(BY)
                ),
            ),
            (3, lambda: self.say_what_became_of_one(which, one(fates), one(BY))),
            (2, lambda: self.a_report_comes(which, one([True, False]))),
            (1, lambda: self.a_report_comes_meanwhile(which, self.random.randint(1, 40))),
            (1, self.try_early_reports_again),
            (2, lambda: self.operate(which, one(ACTS), one([0, 0, 5, 15, 30]))),
            (1, lambda: self.hold(one([*NAMES, PROVIDER_LANE]), one(["pause", "resume", "resume"]))),
        ]
        if self.random.random() < 0.02:
            self.void(which)
        weights = [weight for weight, _ in deeds]
        self.random.choices([deed for _, deed in deeds], weights)[0]()

    # --- what happens -------------------------------------------------------------------------------------------------

    def sell(self, currency: str) -> None:
        id_ = f"{ACCOUNT}.s{len(self.stories)}"
        self.stories[id_] = Story(currency=currency)
        self.provider.add(a_transaction(id_, currency=currency, created_at=self.clock.now()))
        self.run(self._arrive(id_))

    async def _arrive(self, id_: str) -> None:
        bench = Bench(
            clock=self.clock,
            store=self.stores[0],
            payments=self.provider,
            channel=self.peers["email"],
            renderer=FakeRenderer(),
        )
        await bench.arrive(id_, event=True)

    def break_a_channel(self, name: str, ways: list[str]) -> None:
        self.peers[name].ways += ways

    def break_the_provider(self, way: str) -> None:
        self.provider.ways.append(way)

    def both_work(self) -> None:
        self.run(self._both_work())

    async def _both_work(self) -> None:
        await asyncio.gather(self.work(0), self.work(1))

    def one_dies(self, at: str) -> None:
        """A process dies at one of its calls; its leases run out."""
        self.sell(self.random.choice(["NOK", "SEK", "DKK"]))  # or there would mostly be nothing to die of
        self.run(self.work(0, dies_at=at))
        self.clock.advance(61)

    def wait(self, after: float) -> None:
        self.clock.advance(after)

    def be_slow(self, name: str, after: float, taken: bool, fate: Fate | None, by: str) -> None:
        """A peer is slow; the lease runs out, the other replica goes on, and then the answer comes.

        What it took before that may be reported of before it is answered.
        """
        self.sell(self.random.choice(["NOK", "SEK", "DKK"]))
        self.run(self._be_slow(self.peers[name], after, taken, fate, by))

    async def _be_slow(self, peer: Peer, after: float, taken: bool, fate: Fate | None, by: str) -> None:
        peer.gate, peer.reached, peer.after = asyncio.Event(), asyncio.Event(), taken
        before = len(peer.taken)
        slow = asyncio.ensure_future(self.work(0))
        reached = asyncio.ensure_future(peer.reached.wait())
        await asyncio.wait({slow, reached}, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        gate, peer.gate, peer.after = peer.gate, None, False
        for one in peer.taken[before:] if fate else []:
            await self._tell(self._report(one, fate or Fate.UNKNOWN, by))
        if not slow.done():
            self.clock.advance(after)
            await self.work(1)
        gate.set()
        await slow

    # --- what is reported ---------------------------------------------------------------------------------------------

    def say_what_became_of_one(self, which: int, fate: Fate, by: str) -> None:
        """A peer makes a report; it comes when it comes."""
        taken = [one for peer in self.peers.values() for one in peer.taken]
        if not taken:
            return
        self.reports.append(self._report(taken[which % len(taken)], fate, by))

    def _report(self, one: Taken, fate: Fate, by: str) -> Report:
        reference = {"key": one.key, "message id": f"<{one.key}@x>", "remote id": one.remote_id}[by]
        event, at = f"e{next(self.events)}", self.clock.now()
        return Report(channel=one.channel, event_id=event, reference=reference, fate=fate, at=at)

    def a_report_comes(self, which: int, again: bool) -> None:
        if self.reports:
            one = self.reports[which % len(self.reports)]
            if not again:
                self.reports.remove(one)
            self.run(self._tell(one))

    def a_report_comes_meanwhile(self, which: int, calls: int) -> None:
        if self.reports:
            one = self.reports.pop(which % len(self.reports))
            self.run(self._meanwhile(calls, self._tell(one, beside=True)))

    async def _meanwhile(self, calls: int, deed: Coroutine[Any, Any, None]) -> None:
        working = asyncio.ensure_future(self.work(0))
        for _ in range(calls * 5):
            await asyncio.sleep(0)
        await deed
        await working

    async def _tell(self, one: Report, *, beside: bool = False) -> None:
        heard, opens = self.alarms.heard.count("alarm.bounced"), await self._opens(one)
        (told,) = await self.reporter.take([one])
        alarms = self.alarms.heard.count("alarm.bounced") - heard
        self.told.append(one)
        assert alarms == (told is Reported.BOUNCED), f"{alarms} alarms when {told}: {one}"
        send = await self.stores[1].reported(ACCOUNT, one)
        if told in (Reported.RECORDED, Reported.BOUNCED):
            self.recorded.add(one.event_id)
        if told is Reported.BOUNCED:
            assert send is not None
            (delivery,) = await self.stores[1].known([send.delivery_id])
            # A worker beside it may have gone on from there already: with words for what became of it.
            gone_on = beside and delivery.reason is not None
            assert delivery.outcome is Outcome.OPEN or gone_on, f"bounced, and not open: {delivery}"
        elif opens and send is not None:
            (delivery,) = await self.stores[1].known([send.delivery_id])
            alone = await self._is_all_there_is(send, delivery)  # or another came meanwhile
            assert not alone, f"bounced, and nobody was told: {delivery} {send}"

    async def _opens(self, one: Report) -> bool:
        """Tell whether a report takes away all that a customer has of a round that is not over."""
        send = await self.stores[1].reported(ACCOUNT, one)
        if send is None or one.fate is not Fate.FAILED or one.event_id in self.recorded:
            return False
        if send.outcome is not Settled.ACCEPTED or (send.reported_at and one.at and one.at < send.reported_at):
            return False
        (delivery,) = await self.stores[1].known([send.delivery_id])
        return await self._is_all_there_is(send, delivery)

    async def _is_all_there_is(self, send: Send, delivery: Delivery) -> bool:
        if delivery.outcome in (Outcome.CANCELLED, Outcome.SKIPPED) or send.round != delivery.round:
            return False
        others = [other for other in await self.stores[1].sends(delivery.id) if other.id != send.id]
        accepted = [other for other in others if other.round == send.round and other.outcome is Settled.ACCEPTED]
        return not accepted and delivery.stated_round != delivery.round

    def try_early_reports_again(self) -> None:
        self.run(self._try_early_reports())

    async def _try_early_reports(self) -> None:
        for one in await self.stores[1].unmatched_reports(ACCOUNT):
            await self._tell(one)

    # --- what people do -----------------------------------------------------------------------------------------------

    def operate(self, which: int, act: str, calls: int) -> None:
        id_ = sorted(self.stories)[which % len(self.stories)]
        self.run(self._meanwhile(calls, self._operate(id_, act)) if calls else self._operate(id_, act))

    async def _operate(self, id_: str, act: str) -> None:
        store, request = self.stores[1], Request(by="kari", at=self.clock.now(), reason="asked to")
        story = self.stories[id_]
        story.asked[act] += 1
        (before,) = await store.known([id_])
        if act.startswith("has it"):
            delivery = await store.resolve(id_, request, delivered=act == "has it")
            story.stated |= delivery.stated_round is not None
            begins = act == "has it not" and before.outcome in (Outcome.OPEN, Outcome.FAILED)
        else:
            delivery = await getattr(store, act)(id_, request)
            begins = act == "retry"
        # A retry begins with the first channel again; so does what a person says has not arrived.
        story.restarts[before.round] += begins and delivery.round == before.round

    def void(self, which: int) -> None:
        id_ = sorted(self.stories)[which % len(self.stories)]
        self.provider.change(id_, standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
        self.run(self._arrive(id_))

    def hold(self, name: str, what: str) -> None:
        if what == "resume":
            self.run(self.stores[1].resume(ACCOUNT, name))
        else:
            self.run(self.stores[1].pause(ACCOUNT, name, "held", by="kari", probe_in=None))

    # --- what is promised ---------------------------------------------------------------------------------------------

    async def _look_at_capture(self, id_: str) -> None:
        """Called as a capture takes effect: somebody has it, and its early bounces had their time."""
        story, sends = self.stories[id_], await self.stores[1].sends(id_)
        (delivery,) = await self.stores[1].known([id_])
        mine = {send.key for send in sends if send.round >= 0}
        self._must(story.stated or bool(mine & self._taken()), f"captured, and nobody has it: {sends}")
        self._must(delivery.delivered_at is not None, f"captured before it was delivered: {delivery}")
        if not story.stated and not story.asked["resend"]:
            good = [send for send in sends if send.round >= 0 and send.outcome is Settled.ACCEPTED]
            self._must(bool(good), f"captured, and it had bounced: {sends}")
            proved = any(send.reported_at for send in good)
            since = max((send.settled_at or send.begun_at for send in good), default=self.clock.now())
            early = self.clock.now() - since < timedelta(seconds=self.terms.capture_delay - 1)
            self._must(proved or not early or not good, f"captured before CAPTURE_DELAY: {delivery}")

    def _must(self, holds: bool, otherwise: str) -> None:
        """Keep what is wrong until the step is over: raised inside of a worker, it would be one more error of its."""
        if not holds:
            self.broken.append(otherwise)

    def _taken(self) -> set[str]:
        return {one.key for peer in self.peers.values() for one in peer.taken}

    async def _explained(self) -> None:
        assert not self.broken, self.broken[0]
        known = set()
        for id_, story in self.stories.items():
            (delivery,) = await self.stores[1].known([id_])
            sends = await self.stores[1].sends(id_)
            known |= {send.key for send in sends}
            self._check(delivery, sends, story)
        assert self._taken() <= known, "taken, and not in the record"

    def _check(self, delivery: Delivery, sends: tuple[Send, ...], story: Story) -> None:
        copies = Counter(one.key for peer in self.peers.values() for one in peer.taken)
        for key in {send.key for send in sends}:
            self._copies(copies[key], [send for send in sends if send.key == key])
        persons = story.asked["resend"] + story.asked["has it not"]
        assert delivery.round <= persons, delivery
        route = OF_CURRENCY[story.currency]
        for round_ in {send.round for send in sends if send.round >= 0}:
            of_round = [send for send in sends if send.round == round_]
            assert {send.channel for send in of_round} <= set(route), f"off its route {route}: {of_round}"
            self._once(of_round, story)
        beside = Counter((send.round, send.channel) for send in sends if send.round < 0)
        assert max(beside.values(), default=0) <= 1, f"copied twice: {sends}"
        assert sum(send.outcome is Settled.OPEN for send in sends) <= 1, f"more than one is under way: {sends}"

    def _copies(self, copies: int, of_key: list[Send]) -> None:
        """Compare what a peer took of one intent with what the record says of it."""
        channel = of_key[0].channel
        doubtful = sum(send.outcome in IN_DOUBT or send.answer == DENIED for send in of_key)
        # A report may come of what was in doubt.
        arrived = sum(send.outcome in (Settled.ACCEPTED, Settled.BOUNCED) for send in of_key)
        proved = sum(send.reported_at is not None for send in of_key)
        assert copies <= arrived + doubtful, f"{copies} arrived: {of_key}"
        idempotent = self.peers[channel].guarantee is Guarantee.IDEMPOTENT
        assert idempotent or arrived - proved <= copies, f"only {copies} arrived: {of_key}"
        repeats = sum(send.purpose is Purpose.REPEAT for send in of_key)
        if self.peers[channel].guarantee is Guarantee.AT_MOST_ONCE:
            assert repeats == 0, f"sent again, and must not be: {of_key}"

    def _once(self, of_round: list[Send], story: Story) -> None:
        """A channel has its turn once in a round, and once more for each time that a person had it begun again."""
        turns = [send for before, send in zip([None, *of_round], of_round, strict=False) if _other(before, send)]
        often = Counter(send.channel for send in turns)
        most = 1 + story.restarts[of_round[0].round]
        assert max(often.values()) <= most, f"{often} turns, and {most} at most: {of_round}"

    # --- the end ------------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Nothing goes wrong any more, and what was reported has come."""
        for peer in self.peers.values():
            peer.ways.clear()
        self.provider.ways.clear()
        for lane in (*NAMES, PROVIDER_LANE):
            await self.stores[0].resume(ACCOUNT, lane)
        for one in self.reports:
            await self._tell(one)
        for _ in range(60):
            await self._both_work()
            await self._try_early_reports()
            deliveries = await self.stores[0].known(sorted(self.stories))
            if not any(delivery.outcome is Outcome.OPEN for delivery in deliveries):
                break
            self.clock.advance(6 * HOUR)
        await self._explained()
        for delivery in deliveries:
            await self._ended(delivery)

    async def _ended(self, delivery: Delivery) -> None:
        sends = await self.stores[0].sends(delivery.id)
        assert delivery.outcome is not Outcome.OPEN, f"not settled: {delivery}"
        assert delivery.outcome is Outcome.COMPLETED or delivery.reason, delivery
        assert not any(send.outcome is Settled.OPEN for send in sends), f"left open: {sends}"
        collection = self.provider.transactions[delivery.id].collection
        assert len([event for event in collection.events if event.success]) <= 1
        if delivery.outcome is not Outcome.COMPLETED:
            return
        of_round = {send.outcome for send in sends if send.round == delivery.round}
        stated = delivery.stated_round is not None
        assert stated or Settled.ACCEPTED in of_round, f"completed, and nobody has it: {delivery} {sends}"
        assert collection.begun, delivery


def _other(before: Send | None, send: Send) -> bool:
    return before is None or before.channel != send.channel


WALKS, SEED = int(os.environ.get("CHANNEL_WALKS", "12")), os.environ.get("CHANNEL_SEED", "1")


@pytest.mark.parametrize("number", range(WALKS))
def test_promises_are_kept_over_all_channels(number: int) -> None:
    Channels(f"{SEED} {number}").walk(30)


@pytest.mark.parametrize("number", range(2))
def test_promises_are_kept_on_postgresql(number: int, postgres_database: str) -> None:
    Channels(f"{SEED} {number}", emptied(postgres_database)).walk(30)
