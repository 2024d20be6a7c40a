"""The verbs: one pass over a claimed delivery, from reading the transaction to the capture, and what is said of it."""

from collections.abc import Callable

from service.decide import (
    Close,
    Decision,
    Deliver,
    Ending,
    StartCapture,
    by_age,
    by_content,
    by_standing,
    next_effect,
)
from service.delivery import Claim, Kind, Outcome, Standing
from service.pipeline.asides import tell_cancelled, with_copies
from service.pipeline.capturing import settle_open_capture, start_capture
from service.pipeline.consolidating import gather
from service.pipeline.ending import end, look_at_closed
from service.pipeline.falling import fall, not_too_long, tire
from service.pipeline.invoicing import next_of_invoice
from service.pipeline.purchasing import had_it, next_of_purchase
from service.pipeline.reading import learn_collection, read, resolve
from service.pipeline.room import Room
from service.pipeline.sending import deliver, settle_open_sends
from service.pipeline.work import Parts, Passed, Work, database_now
from service.purchases import is_grouped

__all__ = ["Parts", "Passed", "Pipeline", "Room"]


class Pipeline:
    """Drives deliveries; everything it talks to is given to it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def advance(self, claim: Claim, move: Callable[[str], bool]) -> Passed:
        """Take a delivery as far as it goes now. `move` asks for a slot of a channel's lane and says if it got one.

        Raises `LeaseLost` and `StoreUnavailable`; the intents it committed tell the next pass where it was.
        """
        work = _work(self._parts, claim, move)
        await settle_open_sends(work)  # first: however the pass ends, the record says what is in doubt
        await gather(work)  # once in a pass: what is decided and prepared rests on one set of purchases
        if claim.delivery.outcome in (Outcome.COMPLETED, Outcome.FAILED):
            return await look_at_closed(work)
        ending = await _run(work)
        if isinstance(ending, Close) and ending.voided:
            await tell_cancelled(work)
        return end(work, await with_copies(work, ending))

    async def abandon(self, claim: Claim) -> None:
        """Say of what a dead process left of a delivery that is given up that its outcome is not known."""
        await settle_open_sends(_work(self._parts, claim, lambda _lane: False))


def _work(parts: Parts, claim: Claim, move: Callable[[str], bool]) -> Work:
    return Work(
        parts=parts,
        claim=claim,
        claimed_at=parts.clock.now(),
        delivery=claim.delivery,
        sends=list(claim.sends),
        captures=list(claim.captures),
        entries=[],
        move=move,
    )


async def _run(work: Work) -> Ending:
    decision = await read(work) or await _next(work)
    while True:
        if isinstance(decision, Close) and decision.of_channel is not None:
            closing = decision
            try:
                decision = fall(work, decision) or await _next(work)
            except LookupError:
                return closing
        elif isinstance(decision, Deliver | StartCapture):
            act = deliver(work, decision) if isinstance(decision, Deliver) else start_capture(work)
            # An effect that succeeded says nothing; what comes next rests on a new read.
            decision = await act or await read(work) or await _next(work)
        else:
            return decision


async def _next(work: Work) -> Decision:
    now, transaction = work.parts.clock.now(), work.known
    if work.delivery.kind is Kind.GROUPED:
        tire(work)
        return not_too_long(work, await next_of_invoice(work))
    sends = (*work.sends, *await had_it(work)) if transaction.standing is Standing.VOIDED else work.sends
    verdict: Ending | None = by_standing(work.delivery, transaction, sends, now)
    if verdict is None and is_grouped(transaction.product_type):
        return await next_of_purchase(work)
    verdict = verdict or await resolve(work) or by_content(transaction)
    verdict = verdict or await settle_open_capture(work)
    if verdict:
        return verdict
    verdict = by_age(work.delivery, transaction, work.captures, work.parts.rules, work.parts.born_at)
    learn_collection(work)
    tire(work)
    effect = next_effect(work.delivery, transaction, work.sends, work.parts.rules, database_now(work))
    return verdict or not_too_long(work, effect)
