"""`routes explain`: by which channels an invoice goes, and which rule of routes.toml decided it."""

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli_choice import text
from service.cli_explain import of_file, of_transaction
from service.cli_frame import load, now, plain_trouble, print_json

if TYPE_CHECKING:
    from service.delivery import Route, Transaction


@click.group()
def routes() -> None:
    """Show by which channels invoices go."""


@routes.command()
@click.argument("subject", metavar="ID|FILE", callback=text)
@click.option(
    "--on", "day", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="As if it were invoiced on this day."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def explain(subject: str, day: datetime | None, as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Show which rule decides by which channels an invoice goes.

    ID: one that is at Dintero, where it is read. FILE: a transaction, a session, or a request for either, JSON or TOML;
    Dintero is not asked then.
    """
    with plain_trouble():
        found = _found(subject, day.date() if day else None)
    if as_json:
        print_json([_json(transaction, route) for transaction, route in found])
    else:
        click.echo("\n\n".join(_shown(transaction, route) for transaction, route in found))


def _found(subject: str, day: date | None) -> "list[tuple[Transaction, Route]]":
    from service.settings import Need  # noqa: PLC0415

    path = Path(subject)
    told = of_file(path) if path.is_file() else (of_transaction(subject),)
    settings = load(Need.DECIDING)
    from service import app  # noqa: PLC0415

    today = day or now().astimezone(settings.timezone).date()
    # A day that is asked for stands in the place of the invoice's own.
    asked = [replace(transaction, invoice_date=day) if day else transaction for transaction, *_ in told]
    return [(transaction, app.explain_route(settings, transaction, today)) for transaction in asked]


def _shown(transaction: "Transaction", route: "Route") -> str:
    from service.privacy import scrub  # noqa: PLC0415

    lines = [f"{transaction.id}  {scrub(transaction.product_type)}", f"decided by {route.rule}"]
    lines += [f"{place}. {name}" for place, name in enumerate(route.channels, 1)]
    if route.exclusive:
        lines.append("and no other channel takes its place")
    if route.courtesy:
        lines.append(f"with a courtesy copy by {', '.join(route.courtesy)}")
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in route.warnings)])


def _json(transaction: "Transaction", route: "Route") -> dict[str, Any]:
    return {
        "transaction_id": transaction.id,
        "product_type": transaction.product_type,
        "rule": route.rule,
        "channels": list(route.channels),
        "exclusive": route.exclusive,
        "courtesy": list(route.courtesy),
        "warnings": list(route.warnings),
    }
