"""Claims due deliveries, runs a pass over each, saves what came of it; slots, leases and the graceful stop."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from service.decide import Fault, Rules, tick
from service.delivery import (
    PROVIDER_LANE,
    Claim,
    Clock,
    DeliveryFailure,
    Entry,
    LeaseLost,
    Outcome,
    Probe,
    Result,
    Schedule,
    Step,
    Store,
    StoreUnavailable,
    TransientFailure,
)
from service.lanes import Lanes, probe_delay
from service.metrics import Metrics
from service.pipeline import Passed, Pipeline

POISONED_AFTER = 5
SUSPECTS_EVERY = 30.0
STRAYS_EVERY = 600.0
FALL_EVERY = 60.0
ALONE_SECONDS = 20.0
CHECK_SECONDS = 90.0
_log = structlog.get_logger()


class Worker:
    """Works through what is due, with `concurrency` slots for each channel and as many for the provider."""

    def __init__(
        self,
        *,
        store: Store,
        pipeline: Pipeline,
        rules: Rules,
        clock: Clock,
        metrics: Metrics,
        account_id: str,
        tries: Mapping[str, Callable[[], Awaitable[str]]],
        concurrency: int,
        lease: float,
        stop_grace: float,
        poll: float = 1.0,
        alone: float = ALONE_SECONDS,
    ) -> None:
        self._tries = tries  # a lane's name, and how it is tried without delivering anything
        self._lanes = Lanes([lane for lane in tries if lane != PROVIDER_LANE], concurrency)
        self._store = store
        self._pipeline = pipeline
        self._rules = rules
        self._clock = clock
        self._metrics = metrics
        self._account_id = account_id
        self._lease = lease
        self._stop_grace = stop_grace
        self._poll = poll
        self._alone = alone
        self._in_hand: dict[asyncio.Task[Fault | None], Claim] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}  # by lane: one that hangs keeps no other from being tried
        self._trying: dict[str, Probe] = {}
        self._woken = asyncio.Event()
        self._more = False  # whether the last look left due work behind for want of slots
        self._suspects_at = clock.monotonic()
        self._suspects_after = SUSPECTS_EVERY
        self._suspect: asyncio.Task[Fault | None] | None = None
        self._adopted_at: float | None = None
        self._fell_at: float | None = None
        self._looked_at: float | None = None
        self._stopping = asyncio.Event()

    def quiet_for(self) -> float | None:
        """Return the seconds since the last whole look for work; None when it does not run."""
        return None if self._looked_at is None else self._clock.monotonic() - self._looked_at

    def wake(self) -> None:
        """Look for due work at once instead of at the next poll."""
        self._woken.set()

    def stop(self) -> None:
        """Take no more work; `run` returns when what is in hand is done or STOP_GRACE has passed."""
        self._stopping.set()
        self._woken.set()

    async def run(self) -> None:
        """Work until `stop`."""
        renewing = asyncio.create_task(self._renew_for_ever())
        try:
            while not self._stopping.is_set():
                if renewing.done():
                    renewing.result()  # only a bug ends it, and without it no lease lasts
                await self._round()
            await self._finish()
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, *self._abandon(), return_exceptions=True)

    async def drain(self) -> int:
        """Work until nothing is due any more; return the number of passes. For tests, which move the clock between."""
        passes = 0
        await self._adopt_strays()
        while True:
            await self._look_at_pauses()
            await self._fall_back()
            claimed = await self._claim_all()
            if not claimed and await self._claim_suspect() is None and not self._probes:
                return passes
            passes += claimed or 1
            await asyncio.gather(*self._in_hand, *self._probes.values())

    # --- taking work -------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        self._woken.clear()
        try:
            await self._adopt_strays()
            await self._look_at_pauses()
            await self._fall_back()
            overdue = self._clock.monotonic() - self._suspects_at > self._suspects_after
            if overdue:  # before the others, who would take every slot that comes free
                await self._look_for_a_suspect()
            busy = await self._claim_all()
            if not busy and not overdue:
                await self._look_for_a_suspect()
            self._looked_at = self._clock.monotonic()
        except StoreUnavailable as exc:
            self._alarm("alarm.store_unavailable", reason=str(exc))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), self._poll)

    async def _adopt_strays(self) -> None:
        """Take up what waits for a channel that CHANNELS does not name any more, or nobody would ever claim it."""
        now = self._clock.monotonic()
        if self._adopted_at is None or now - self._adopted_at > STRAYS_EVERY:
            moved = await self._store.adopt(self._account_id, self._lanes.names)
            self._adopted_at = now
            if moved:
                _log.info("service.adopted", count=moved)

    async def _fall_back(self) -> None:
        """Take what has waited too long for a paused channel up again: another one may have its turn."""
        now = self._clock.monotonic()
        if not self._lanes.several or (self._fell_at is not None and now - self._fell_at < FALL_EVERY):
            return
        self._fell_at = now
        for pause in await self._store.pauses(self._account_id):
            if pause.lane != PROVIDER_LANE:
                await self._store.fall_from(self._account_id, pause.lane, self._rules.fallback_after)

    async def _claim_all(self) -> int:
        claimed, self._more = 0, False
        for lane in self._lanes.names:
            free = self._lanes.free(lane)
            if free < self._lanes.batch(lane):
                self._more = True
                continue
            claims = await self._store.claim(self._account_id, lane, free, lease=self._lease, suspects=False)
            for claim in claims:
                self._start(claim, lane)
            claimed += len(claims)
            self._more |= len(claims) == free
        return claimed

    async def _look_for_a_suspect(self) -> None:
        """Run a delivery whose last claim ended without a save on its own, in case it is what brought us down.

        Nothing else is claimed meanwhile, but not for long: a silent relay may keep it for minutes, and others are due.
        One that is not done by then goes on beside them, and no other suspect is taken before it ends. The next one has
        its turn when the others have had as much time again, so that what a crash left comes back within minutes.
        """
        if self._suspect is not None and not self._suspect.done():
            return
        began = self._clock.monotonic()
        self._suspect = await self._claim_suspect()
        if self._suspect is None:
            if any(self._lanes.free(lane) <= 0 for lane in self._lanes.names):
                return  # it may wait for a slot: the next that comes free is its own
            self._suspects_after = SUSPECTS_EVERY
        else:
            stopping = asyncio.create_task(self._stopping.wait())
            both = {self._suspect, stopping}
            await asyncio.wait(both, timeout=2 * self._alone, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            self._woken.set()
            self._suspects_after = min(SUSPECTS_EVERY, self._clock.monotonic() - began)
        self._suspects_at = self._clock.monotonic()

    async def _claim_suspect(self) -> asyncio.Task[Fault | None] | None:
        for lane in self._lanes.names:
            if self._lanes.free(lane) <= 0:
                continue
            for claim in await self._store.claim(self._account_id, lane, 1, lease=self._lease, suspects=True):
                return self._start(claim, lane, after=list(self._in_hand))
        return None

    def _start(
        self,
        claim: Claim,
        lane: str,
        *,
        after: Collection[asyncio.Task[Fault | None]] = (),
        probing: str | None = None,
    ) -> asyncio.Task[Fault | None]:
        self._lanes.take(lane)
        handling = self._after(after, claim, lane) if after else self._handle(claim, lane, probing)
        task = asyncio.create_task(handling)
        self._in_hand[task] = claim
        task.add_done_callback(self._done)
        return task

    async def _after(self, others: Collection[asyncio.Task[Fault | None]], claim: Claim, lane: str) -> Fault | None:
        """Give what is in hand a moment to end first; the lease is renewed meanwhile with theirs."""
        ended = asyncio.create_task(asyncio.wait(others))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ended, stopping}, timeout=self._alone, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            stopping.cancel()
        if self._stopping.is_set():  # nothing is begun any more; the next process takes it when the lease ends
            self._lanes.leave(lane)
            return None
        return await self._handle(claim, lane)

    def _done(self, task: asyncio.Task[Fault | None]) -> None:
        del self._in_hand[task]
        if self._more:
            self._woken.set()

    # --- one delivery ------------------------------------------------------------------------------------------------

    async def _handle(self, claim: Claim, lane: str, probing: str | None = None) -> Fault | None:
        """Run one pass and save it; return the trouble of ours that it met.

        What goes wrong here is logged; the lease brings the delivery back.
        """
        at = lane

        def move(to: str) -> bool:
            nonlocal at
            if to != at:
                if not self._lanes.open(to):
                    return False
                self._lanes.leave(at)
                self._lanes.take(to)
                at = to
            return True

        try:
            passed = await self._pass(claim, move)
            fault = self._lanes.met(claim.delivery.id, passed.fault, passed.sent)
            if fault is not None:
                await self._pause(fault)
            await self._store.save(claim, passed.delivery, passed.schedule, passed.entries)
            self._more |= passed.schedule.due_in == 0 and passed.delivery.lane != probing
        except LeaseLost:
            self._alarm("alarm.lease_lost", transaction_id=claim.delivery.transaction_id)
        except StoreUnavailable as exc:
            self._alarm("alarm.store_unavailable", transaction_id=claim.delivery.transaction_id, reason=str(exc))
        except Exception:  # noqa: BLE001 - a bug in saving: logged whole, and the lease bounds how often it can come again
            self._unexpected(claim)
        else:
            return passed.fault
        finally:
            self._lanes.leave(at)
        return None

    async def _pass(self, claim: Claim, move: Callable[[str], bool]) -> Passed:
        if claim.delivery.claims > POISONED_AFTER:
            return await self._given_up(claim)
        try:
            return await self._pipeline.advance(claim, move)
        except (LeaseLost, StoreUnavailable):
            raise
        except Exception as exc:  # noqa: BLE001
            # A bug: its traceback goes to the log, and the delivery gets a bounded number of further chances.
            self._unexpected(claim)
            return self._after_error(claim, type(exc).__name__)

    async def _given_up(self, claim: Claim) -> Passed:
        """Close what ends every process that takes it, whatever comes of saying what those left in doubt."""
        try:
            await self._pipeline.abandon(claim)
        except (LeaseLost, StoreUnavailable):
            raise
        except Exception:  # noqa: BLE001 - a bug, and nobody else would ever close it
            self._unexpected(claim)
        return self._failed(claim, f"{POISONED_AFTER} attempts in a row ended without being recorded")

    def _after_error(self, claim: Claim, name: str) -> Passed:
        errors = claim.delivery.errors + 1
        if errors >= POISONED_AFTER:
            return self._failed(claim, f"{errors} unexpected errors in a row, the last a {name}")
        delay = self._rules.retry_delays[min(errors - 1, len(self._rules.retry_delays) - 1)]
        again = replace(claim.delivery, errors=errors)
        if again.outcome is Outcome.OPEN:
            again = replace(again, reason=f"unexpected error: {name}")
        return Passed(delivery=again, schedule=Schedule(due_in=delay), entries=())

    def _failed(self, claim: Claim, reason: str) -> Passed:
        """Give up for a person to look; what was closed, and only looked at again, stays what it is."""
        now = self._clock.now()
        delivery = claim.delivery
        if delivery.outcome is Outcome.OPEN:
            delivery = replace(delivery, outcome=Outcome.FAILED, reason=reason, closed_at=now)
            self._metrics.closed(Outcome.FAILED)
            _log.info(
                "delivery.closed",
                transaction_id=delivery.transaction_id,
                attempt=delivery.attempt,
                outcome=Outcome.FAILED,
                reason=reason,
            )
        entry = Entry(at=now, step=Step.CLOSE, result=Result.REFUSED, detail=reason)
        self._alarm("alarm.failed", transaction_id=delivery.transaction_id, reason=reason)
        return Passed(delivery=delivery, schedule=Schedule(due_in=None), entries=(entry,))

    def _alarm(self, name: str, **details: object) -> None:
        self._metrics.alarm(name)
        _log.warning(name, **details)

    def _unexpected(self, claim: Claim) -> None:
        """Report a bug; only called while its exception is handled."""
        self._metrics.alarm("alarm.unexpected_error")
        _log.exception("alarm.unexpected_error", transaction_id=claim.delivery.transaction_id)

    # --- what is at fault --------------------------------------------------------------------------------------------

    async def _look_at_pauses(self) -> None:
        self._lanes.know(await self._store.pauses(self._account_id))
        while self._lanes.any_at_fault and (idle := [name for name in self._lanes.names if name not in self._probes]):
            probe = await self._store.take_probe(self._account_id, idle, lease=self._lease)
            if probe is None:
                return
            task = asyncio.create_task(self._try(probe))
            self._probes[probe.lane], self._trying[probe.lane] = task, probe
            task.add_done_callback(partial(self._tried, probe.lane))

    def _tried(self, lane: str, _: asyncio.Task[None]) -> None:
        del self._probes[lane], self._trying[lane]

    async def _pause(self, fault: Fault) -> None:
        """Claim nothing from a lane that is at fault, on any replica, until a probe gets through."""
        probe_in = probe_delay(self._rules, 0, fault.retry_after)
        begun = await self._store.pause(self._account_id, fault.lane, fault.reason, by=None, probe_in=probe_in)
        self._lanes.pause(fault.lane)
        if begun:
            self._alarm("alarm.lane_paused", lane=fault.lane, reason=fault.reason)

    async def _try(self, probe: Probe) -> None:
        """See whether a lane works again: by its own check first, which costs no delivery anything, then by one."""
        try:
            fault = await self._checked(probe.lane) or await self._carried(probe)
            reason, wait = (fault.reason, fault.retry_after) if fault else (None, None)
            next_in = probe_delay(self._rules, probe.probes + 1, wait)
            if await self._store.end_probe(probe, fault=reason, next_in=next_in):
                _log.info("service.lane_resumed", lane=probe.lane)
                self._woken.set()
        except StoreUnavailable as exc:
            self._alarm("alarm.store_unavailable", reason=str(exc))
        except Exception:  # noqa: BLE001 - a bug: logged whole; the leave to try runs out, and somebody tries again
            self._metrics.alarm("alarm.unexpected_error")
            _log.exception("alarm.unexpected_error", lane=probe.lane)

    async def _checked(self, lane: str) -> Fault | None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._tries[lane]()
        except TimeoutError:
            return Fault(lane=lane, reason=f"no answer to a check within {CHECK_SECONDS:g} s")
        except DeliveryFailure as failure:
            retry_after = failure.retry_after if isinstance(failure, TransientFailure) else None
            return Fault(lane=lane, reason=failure.reason, retry_after=retry_after)
        except Exception as exc:  # noqa: BLE001 - a bug, or somebody's own channel's: the lane is no better for it
            self._metrics.alarm("alarm.unexpected_error")
            _log.exception("alarm.unexpected_error", lane=lane)
            return Fault(lane=lane, reason=f"unexpected error: {type(exc).__name__}")
        return None

    async def _carried(self, probe: Probe) -> Fault | None:
        """Take one delivery through the lane; None also when nothing waits for it."""
        lane = probe.lane
        for waiting in self._lanes.names if lane == PROVIDER_LANE else (lane,):
            claims = await self._store.claim(
                self._account_id, waiting, 1, lease=self._lease, suspects=False, probing=lane
            )
            for claim in claims:
                # Its give-up clock stood still since the pause began, which only the pause's end writes down.
                stopped = replace(claim, delivery=tick(claim.delivery, probe.since, runs=False))
                fault = await self._start(stopped, waiting, probing=lane)
                return fault if fault is not None and fault.lane == lane else None
        return None

    # --- leases and the end ------------------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            claims, probes = list(self._in_hand.values()), list(self._trying.values())
            try:
                if claims:
                    await self._store.renew(claims, lease=self._lease)
                for probe in probes:
                    await self._store.renew_probe(probe, lease=self._lease)
            except StoreUnavailable as exc:
                # Who cannot renew starts no new effect: the store itself refuses an intent whose lease has run out.
                self._alarm("alarm.store_unavailable", reason=str(exc))

    async def _finish(self) -> None:
        if self._in_hand:
            await asyncio.wait(list(self._in_hand), timeout=self._stop_grace)

    def _abandon(self) -> list[asyncio.Task[Any]]:
        for probe in self._probes.values():
            probe.cancel()
        left: list[asyncio.Task[Any]] = list(self._in_hand)
        for task in left:
            task.cancel()
        return [*left, *self._probes.values()]
