"""`deliveries cancel --void`: what was stopped here is voided at Dintero too, and the record says how that went."""

from collections.abc import Sequence

import click

from service.app import open_payments
from service.cli_frame import now
from service.delivery import (
    AccountFailure,
    Delivery,
    DeliveryFailure,
    Entry,
    Payments,
    Request,
    Result,
    Standing,
    Step,
    Store,
    UnconfirmedFailure,
)
from service.settings import Settings

_LOOK = "Look at the transaction in Dintero's Backoffice; if it is not voided there, say the same again."


async def void_all(settings: Settings, store: Store, stopped: Sequence[Delivery], asked: Request) -> bool:
    """Void each of these at Dintero; return whether all are voided. What fails is said, and the next one is tried."""
    voided = 0
    async with open_payments(settings) as payments:
        for delivery in stopped:
            result, detail, goes_on = await _void(payments, delivery.transaction_id)
            line = Entry(at=now(), step=Step.OPERATOR, result=result, detail=f"void by {asked.by}: {detail}")
            await store.note(delivery.id, line)
            _say(delivery, result, detail)
            voided += result is Result.ACCEPTED
            if not goes_on:
                break
    if voided < len(stopped):
        click.echo(f"Of {len(stopped)} stopped here, {voided} are voided at Dintero.", err=True)
    return voided == len(stopped)


async def _void(payments: Payments, transaction_id: str) -> tuple[Result, str, bool]:
    """Void one; return how it went, in words, and whether there is any use in trying another."""
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
    name = delivery.transaction_id
    match result:
        case Result.ACCEPTED:
            click.echo(f"{name} is voided at Dintero.")
        case Result.UNCONFIRMED:
            click.echo(f"{name}: it is NOT KNOWN whether it is voided at Dintero ({detail}). {_LOOK}", err=True)
        case _:
            click.echo(f"{name} is stopped here and was NOT voided at Dintero: {detail}", err=True)
