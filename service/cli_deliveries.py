"""`deliveries`: the commands that look at the record, and those that act on what is in it as an operator."""

from collections.abc import Sequence
from typing import Any

import click

from service.cli_acts import cancel, resend, resolve, retry
from service.cli_choice import text
from service.cli_evidence import evidence_of
from service.cli_frame import in_record, one, plain_trouble, print_json, width
from service.cli_links import links_in_words, links_json
from service.cli_listing import list_
from service.delivery import PROVIDER_LANE, Delivery, Kind, Member, Members, Outcome, Pause, Store


@click.group()
def deliveries() -> None:
    """Look at the record, and act on it.

    A delivery is named by its transaction id, invoice number or merchant reference.
    """


@deliveries.command()
@click.argument("reference", metavar="ID", callback=text)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def show(reference: str, as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Show one delivery with its history."""
    from service.record_json import delivery_json  # noqa: PLC0415
    from service.terminal import details  # noqa: PLC0415

    async def look(store: Store) -> None:
        delivery = await one(store, reference)
        history, members = await store.history(delivery.id), await _members(store, delivery)
        links = await store.links_of(delivery.id)
        if as_json:
            print_json(delivery_json(delivery, history) | _together(delivery, members) | links_json(links))
            return
        sends, captures = await store.sends(delivery.id), await store.captures(delivery.id)
        held_up = _in_the_way(delivery, await store.pauses(delivery.account_id))
        click.echo(details(delivery, history=history, sends=sends, captures=captures, pauses=held_up, width=width()))
        if members:
            click.echo(f"\n{_in_words(delivery, members)}")
        if links:
            click.echo(f"\n{links_in_words(links)}")

    with plain_trouble():
        in_record(look)


def _in_the_way(delivery: Delivery, pauses: tuple[Pause, ...]) -> tuple[Pause, ...]:
    """Return the pauses that the delivery waits for."""
    if delivery.outcome is not Outcome.OPEN:
        return ()
    return tuple(pause for pause in pauses if pause.lane in (delivery.lane, PROVIDER_LANE))


async def _members(store: Store, delivery: Delivery) -> tuple[Member, ...]:
    """Return the purchases of a consolidated invoice; of a purchase, itself."""
    if delivery.kind is Kind.GROUPED:
        return await store.members(Members(invoice_id=delivery.id))
    return await store.members(Members(transaction_id=delivery.id)) if delivery.kind is Kind.PURCHASE else ()


def _together(delivery: Delivery, members: Sequence[Member]) -> dict[str, Any]:
    """Return what the JSON says of a purchase's group, or of an invoice's purchases."""
    if delivery.kind is Kind.GROUPED:
        return {"purchases": [member.purchase.transaction_id for member in members]}
    if not members:
        return {}
    from service.purchases import period_bought_in  # noqa: PLC0415

    purchase = members[0].purchase
    return {
        "group": purchase.group,
        "period": period_bought_in(purchase).label,
        "grouped_invoice_number": purchase.invoice_number,
        "difference": purchase.remark,
    }


def _in_words(delivery: Delivery, members: Sequence[Member]) -> str:
    from service.terminal import money, table  # noqa: PLC0415

    if delivery.kind is Kind.GROUPED:
        rows = [
            (
                *(one.purchase.transaction_id, one.purchase.group[:10], one.delivery.outcome.value),
                *(", ".join(one.delivery.progress) or "-", money(one.purchase.amount, one.purchase.currency)),
            )
            for one in members
        ]
        return "Purchases\n" + table(("TRANSACTION", "GROUP", "OUTCOME", "DONE", "AMOUNT"), rows, width=width())
    from service.purchases import period_bought_in  # noqa: PLC0415

    purchase = members[0].purchase
    invoice = f"on invoice {purchase.invoice_number}" if purchase.invoice_number else "its invoice has not come yet"
    remark = f"; {purchase.remark}" if purchase.remark else ""
    return f"A purchase of {period_bought_in(purchase).label}, {invoice}{remark}: groups show {purchase.group[:10]}"


for _command in (list_, retry, resend, cancel, resolve, evidence_of):
    deliveries.add_command(_command)
