"""`deliveries cancel --void`: what is stopped here is voided at Dintero too, and the record says how that went."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from service.app import open_payments
from service.cli_frame import PROGRAM, now, say
from service.delivery import (
    AccountFailure,
    Delivery,
    DeliveryFailure,
    Entry,
    Outcome,
    Payments,
    Request,
    Result,
    Standing,
    Step,
    Store,
    StoreUnavailable,
    UnconfirmedFailure,
)
from service.settings import Settings

_AGAIN = f"{PROGRAM} deliveries cancel {{}} --void"
_COMPLETED = (
    "it is delivered, and its collection has begun. Void or refund it in Dintero's Backoffice, and tell the customer"
)
_UNFINISHED = "the command ended before Dintero had answered"


async def void_all(settings: Settings, store: Store, meant: Sequence[tuple[str, Request]]) -> bool:
    """Stop each here and void it at Dintero, before the next is begun; return whether that went well with all.

    However this ends, each that it did not come to is named: nothing was done to it.
    """
    stopped = voided = reached = 0
    try:
        async with open_payments(settings) as payments:
            for name, asked in meant:
                delivery = await store.cancel(name, _to_be_voided(asked))
                reached += 1
                if delivery.outcome is not Outcome.CANCELLED:
                    _say_not_stopped(delivery)
                    continue
                stopped += 1
                result, goes_on = await _void(store, payments, delivery, asked)
                voided += result is Result.ACCEPTED
                if not goes_on:
                    break
    finally:
        for name, _ in meant[reached:]:
            say(f"{name} was not reached. For this one: {_AGAIN.format(name)}", err=True)
        if voided < stopped:
            say(f"Of {stopped} stopped here, {voided} are voided at Dintero.", err=True)
    return voided == len(meant)


def _to_be_voided(asked: Request) -> Request:
    """Return the request so that the record tells of the void before there is one: who reads it knows what to look for.

    The process may end before the next line is written.
    """
    purpose = "to be voided at Dintero"
    return replace(asked, reason=f"{asked.reason}; {purpose}" if asked.reason else purpose)


async def _void(store: Store, payments: Payments, delivery: Delivery, asked: Request) -> tuple[Result, bool]:
    """Void one, write and say how it went; return that, and whether there is any use in trying another."""

    async def write(result: Result, detail: str) -> None:
        line = Entry(at=now(), step=Step.OPERATOR, result=result, detail=f"void by {asked.by}: {detail}")
        try:
            await store.note(delivery.id, line)
        finally:
            _say(delivery, result, detail)

    try:
        result, detail, goes_on = await _asked_to_void(payments, delivery.transaction_id)
    except asyncio.CancelledError:  # Ctrl-C
        with suppress(StoreUnavailable):
            await write(Result.UNCONFIRMED, _UNFINISHED)
        raise
    await write(result, detail)
    return result, goes_on


async def _asked_to_void(payments: Payments, transaction_id: str) -> tuple[Result, str, bool]:
    try:
        after = await payments.void(transaction_id)
    except DeliveryFailure as failure:
        # A lost answer may have been a good one, and a refusal may mean that it was voided before.
        if await _is_voided(payments, transaction_id):
            return Result.ACCEPTED, "voided at Dintero", True
        result = Result.UNCONFIRMED if isinstance(failure, UnconfirmedFailure) else Result.REFUSED
        return result, failure.reason, not isinstance(failure, AccountFailure)
    if after.standing is Standing.VOIDED:
        return Result.ACCEPTED, "voided at Dintero", True
    return Result.UNCONFIRMED, f"Dintero took the request, and the transaction is still {after.status}", True


async def _is_voided(payments: Payments, transaction_id: str) -> bool:
    try:
        return (await payments.read(transaction_id)).standing is Standing.VOIDED
    except DeliveryFailure:  # what could not be read is not known, and is said to be so
        return False


def _say(delivery: Delivery, result: Result, detail: str) -> None:
    name, why = delivery.transaction_id, detail.rstrip(".")
    again = _AGAIN.format(name)
    match result:
        case Result.ACCEPTED:
            say(f"{name} is stopped here, and voided at Dintero.")
        case Result.UNCONFIRMED:
            look = f"Look at it in Dintero's Backoffice; if it is not voided there: {again}"
            say(f"{name} is stopped here. It is NOT KNOWN whether it is voided at Dintero: {why}. {look}", err=True)
        case _:
            say(f"{name} is stopped here and was NOT voided at Dintero: {why}. To try again: {again}", err=True)


def _say_not_stopped(delivery: Delivery) -> None:
    name, outcome = delivery.transaction_id, delivery.outcome
    why = _COMPLETED if outcome is Outcome.COMPLETED else f"if that is still wanted: {_AGAIN.format(name)}"
    say(f"{name} is {outcome} and stays so. It was NOT voided at Dintero; {why}", err=True)
