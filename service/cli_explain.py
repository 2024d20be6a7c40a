"""`explain`: which level of configuration says who delivers an invoice, and where it goes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli_choice import text
from service.cli_frame import load, now, one, plain_trouble, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.delivery import Delivery, Explained, Level, Store, Transaction
    from service.explaining import Destination
    from service.settings import Settings

    Told = tuple[Transaction, Explained, Destination]

_QUESTIONS = (
    ("channel", "Who delivers (invoice_channel)"),
    ("interval", "How often it is billed (invoice_schedule.interval)"),
    ("days_until_due", "Days until it is due (days_until_due)"),
)


@click.command(short_help="Show who delivers an invoice, and which level decided it.")
@click.argument("subject", metavar="ID|FILE", callback=text)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def explain(subject: str, as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Show who delivers an invoice, level by level, and which level decided it.

    ID: one that is at Dintero; it is read there, and nothing is changed. FILE: a transaction, a session, or a request
    for either, as `sessions create` and `invoices create` take it, JSON or TOML; Dintero is not asked, so this may be
    done before anything is sent.
    """
    with plain_trouble():
        path = Path(subject)
        told = of_file(path) if path.is_file() else (of_transaction(subject),)
    if as_json:
        print_json([_json(*found) for found in told])
    else:
        click.echo("\n\n".join(_shown(*found) for found in told))


def of_transaction(reference: str) -> "Told":
    """Return a transaction that is at Dintero with what decides about it; exits with a line when that does not work."""
    import asyncio  # noqa: PLC0415

    from service.delivery import DeliveryFailure, StoreUnavailable  # noqa: PLC0415
    from service.settings import Need  # noqa: PLC0415

    settings = load(Need.SERVE)
    from service import app  # noqa: PLC0415
    from service.record import open_record  # noqa: PLC0415

    async def read() -> "Told":
        try:
            async with open_record(settings) as store:
                delivery = await _recorded(store, settings, reference)
        except StoreUnavailable:
            if not reference.startswith(f"{settings.account_id}."):
                raise
            delivery = None  # Dintero knows it by its id, and that is who is asked
        return await app.explain(settings, delivery.transaction_id if delivery else reference, delivery)

    try:
        return asyncio.run(read())
    except DeliveryFailure as failure:
        click.echo(f"{reference} cannot be explained: {failure.reason}", err=True)
        sys.exit(1)


async def _recorded(store: "Store", settings: "Settings", reference: str) -> "Delivery | None":
    """Return the delivery that is meant; None of a transaction that the record does not know, which Dintero may."""
    if reference.startswith(f"{settings.account_id}.") and not await store.find(reference):
        return None
    return await one(store, reference)


def of_file(path: Path) -> "tuple[Told, ...]":
    """Return the same of what a file describes, one for each product."""
    import asyncio  # noqa: PLC0415

    from service.cli_file import document_in  # noqa: PLC0415
    from service.ordering import Mistaken  # noqa: PLC0415
    from service.settings import Need  # noqa: PLC0415

    try:
        document = document_in(path)
    except Mistaken as exc:
        click.echo(str(exc), err=True)
        sys.exit(1)
    settings = load(Need.DECIDING)
    from service import app  # noqa: PLC0415

    try:
        return asyncio.run(app.explain_file(settings, document, now()))
    except ValueError as exc:
        click.echo(f"{path} {exc}", err=True)
        sys.exit(1)


def _shown(transaction: "Transaction", explained: "Explained", destination: "Destination") -> str:
    from service.privacy import scrub  # noqa: PLC0415
    from service.terminal import table  # noqa: PLC0415

    lines = [f"{transaction.id}  {scrub(explained.product_type)}"]
    for name, question in _QUESTIONS:
        levels: Sequence[Level] = getattr(explained, name)
        if levels:
            rows = [("->" if level.won else "", level.name, level.value or "-", level.where) for level in levels]
            lines += ["", question, table(("", "LEVEL", "SAYS", "WHERE"), rows, width=None)]
    return "\n".join([*lines, "", destination.words])


def _json(transaction: "Transaction", explained: "Explained", destination: "Destination") -> dict[str, Any]:
    levels = {name: _levels_json(getattr(explained, name)) for name, _ in _QUESTIONS if getattr(explained, name)}
    return {
        "transaction_id": transaction.id,
        "product_type": explained.product_type,
        **levels,
        "goes_to": destination.way,
        "detail": destination.words,
    }


def _levels_json(levels: "Sequence[Level]") -> dict[str, Any]:
    won = next(level for level in levels if level.won)
    return {
        "value": won.value,
        "decided_by": won.name,
        "levels": [
            {"level": level.name, "value": level.value, "where": level.where, "won": level.won} for level in levels
        ],
    }
