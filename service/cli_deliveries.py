"""`deliveries`: the commands that look at the record, and those that act on what is in it as an operator."""

import click

from service.cli_acts import cancel, resend, resolve, retry
from service.cli_choice import text
from service.cli_evidence import evidence_of
from service.cli_frame import in_record, one, plain_trouble, print_json, width
from service.cli_listing import list_
from service.delivery import PROVIDER_LANE, Delivery, Outcome, Pause, Store


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
        history = await store.history(delivery.id)
        if as_json:
            print_json(delivery_json(delivery, history))
            return
        sends, captures = await store.sends(delivery.id), await store.captures(delivery.id)
        held_up = _in_the_way(delivery, await store.pauses(delivery.account_id))
        click.echo(details(delivery, history=history, sends=sends, captures=captures, pauses=held_up, width=width()))

    with plain_trouble():
        in_record(look)


def _in_the_way(delivery: Delivery, pauses: tuple[Pause, ...]) -> tuple[Pause, ...]:
    """Return the pauses that the delivery waits for."""
    if delivery.outcome is not Outcome.OPEN:
        return ()
    return tuple(pause for pause in pauses if pause.lane in (delivery.lane, PROVIDER_LANE))


for _command in (list_, retry, resend, cancel, resolve, evidence_of):
    deliveries.add_command(_command)
