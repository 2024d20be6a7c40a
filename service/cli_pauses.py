"""`pause`, `resume` and `pauses`: a person holds a channel, or all that needs the provider."""

from collections.abc import Sequence

import click

from service.cli_choice import text
from service.cli_frame import PROGRAM, in_record, load, plain_trouble, print_json, the_user, width
from service.delivery import PROVIDER_LANE, Pause, Store

_channel = click.argument("lane", metavar="CHANNEL", callback=text)


@click.command(short_help="Stop sending by a channel, or at all, until `resume`.")
@_channel
@click.option("--reason", required=True, callback=text, help="Why; it is recorded, and shown.")
def pause(lane: str, reason: str) -> None:
    """Stop sending by a channel until `resume`; `provider` stops all deliveries.

    Invoices wait meanwhile, and their give-up clocks stand still. What is being sent just now is finished.
    """
    from service.privacy import scrub  # noqa: PLC0415
    from service.settings import Need  # noqa: PLC0415

    if not reason.strip():
        raise click.UsageError("--reason is required: whoever finds it paused will want to know.")
    with plain_trouble():
        _must_be_known(lane)
        settings = load(Need.ACCOUNT)

        async def stop(store: Store) -> bool:
            return await store.pause(settings.account_id, lane, scrub(reason), by=the_user(), probe_in=None)

        went = in_record(stop, settings)
    before = "is paused" if went else "was paused already, and now is by you"
    click.echo(f"{lane} {before}, until `{PROGRAM} resume {lane}`.")


@click.command()
@_channel
def resume(lane: str) -> None:
    """Go on after a pause, whoever or whatever made it."""
    from service.settings import Need  # noqa: PLC0415

    with plain_trouble():
        settings = load(Need.ACCOUNT)
        if in_record(lambda store: store.resume(settings.account_id, lane), settings):
            click.echo(f"{lane} goes on.")
            return
        # A channel that is in CHANNELS no more may still be paused; only what is not paused has to have a known name.
        _must_be_known(lane)
        click.echo(f"{lane} was not paused.", err=True)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array on standard output.")
def pauses(as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Show which channels are paused, by whom or why."""
    from service.record_json import time_text  # noqa: PLC0415
    from service.settings import Need  # noqa: PLC0415

    with plain_trouble():
        settings = load(Need.ACCOUNT)
        found = in_record(lambda store: store.pauses(settings.account_id), settings)
    if as_json:
        print_json(
            [
                {
                    "channel": one.lane,
                    "reason": one.reason,
                    "since": time_text(one.since),
                    "by": one.by,
                    "next_probe_at": time_text(one.next_probe_at),
                }
                for one in found
            ]
        )
    elif found:
        click.echo(_table(found))
    else:
        click.echo("Nothing is paused.", err=True)


def _table(found: Sequence[Pause]) -> str:
    from service.terminal import pause_table  # noqa: PLC0415

    return pause_table(found, width=width())


def _must_be_known(lane: str) -> None:
    """End the command unless this is a lane's name. What a channel is called shows only when it is opened."""
    if lane == PROVIDER_LANE:
        return
    import asyncio  # noqa: PLC0415

    from service.app import channel_names  # noqa: PLC0415
    from service.settings import Need  # noqa: PLC0415

    names = asyncio.run(channel_names(load(Need.SERVE)))
    if lane not in names:
        raise click.UsageError(f"{lane} is no channel here; there are: {', '.join((*names, PROVIDER_LANE))}.")
