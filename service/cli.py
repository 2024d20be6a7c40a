"""The command line: reads settings, hands over to app.py, and says in words and exit status how it went.

Every command imports what it needs when it runs, so that `--help` and listings are quick.
"""

import errno
import io
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

import click

from service.cli_create import invoices, sessions
from service.cli_deliveries import deliveries
from service.cli_erase import erase
from service.cli_evidence import evidence
from service.cli_explain import explain
from service.cli_frame import PROGRAM, load, plain_trouble, print_json, program_version, quiet_log
from service.cli_groups import groups
from service.cli_links import links
from service.cli_pauses import pause, pauses, resume
from service.cli_preview import preview
from service.cli_receipts import receipts
from service.cli_reconcile import reconcile
from service.cli_routes import routes
from service.cli_schedule import schedule
from service.cli_statement import statement
from service.cli_webhooks import webhooks

if TYPE_CHECKING:
    from service.settings import Settings


_UNWRITABLE = frozenset({errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC})


class _Closed(io.TextIOBase):
    """A standard output that was closed before we began: nothing can be shown, and that must not look like success."""

    def write(self, _text: str) -> int:
        raise OSError(errno.EBADF, "it is closed")


def main() -> NoReturn:
    """Run the command; the exit status is 0 done, 1 it did not work, 2 wrong usage or settings."""
    if sys.stdout is None:
        sys.stdout = cast("TextIO", _Closed())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal's encoding lacks is no reason to stop
    try:
        cli(prog_name=PROGRAM)
    except OSError as exc:
        if exc.errno not in _UNWRITABLE or exc.filename is not None:  # not about a stream that is open
            raise
        click.echo(f"Standard output cannot be written: {exc.strerror}.", err=True)
        sys.exit(1)
    sys.exit(0)


def _version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:  # noqa: FBT001  # click's shape
    if not asked or context.resilient_parsing:
        return
    click.echo(program_version())
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Deliver Kravia invoices yourself and capture them at Dintero.

    Settings come from the environment (DELIVERY_...) and from a file .env in this folder.
    """


@cli.command()
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104  # a container's
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option("--no-worker", is_flag=True, help="Only take callbacks; workers run elsewhere.")
def serve(host: str, port: int, no_worker: bool) -> None:  # noqa: FBT001  # click's shape
    """Take callbacks and deliver, in one process."""
    with plain_trouble():
        settings = _started()
        from service import app  # noqa: PLC0415

        status = app.serve(settings, host=host, port=port, worker=not no_worker)
    sys.exit(status)


@cli.command()
def worker() -> None:
    """Deliver only; callbacks are taken elsewhere."""
    with plain_trouble():
        settings = _started()
        from service import app  # noqa: PLC0415

        status = app.work(settings)
    sys.exit(status)


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the demo.  [default: 8080, or a free one]")
@click.option("--exit", "exit_after", is_flag=True, help="Stop once its invoices are captured.")
def demo(port: int | None, exit_after: bool) -> None:  # noqa: FBT001  # click's shape
    """Show everything on this machine, with nothing to set up.

    A simulated provider, a mail server, SMS providers and an ERP with pages of their own, and the service: invoices
    are created, delivered by mail, SMS and to the ERP, and captured. Neither your settings nor your .env are read.
    """
    quiet_log()
    with plain_trouble():
        try:
            status = _demonstrate(port, exit_after=exit_after)
        except KeyboardInterrupt:  # whatever is still being imported
            status = 1 if exit_after else 0  # with --exit, 0 is kept for invoices that were captured
    sys.exit(status)


def _demonstrate(port: int | None, *, exit_after: bool) -> int:
    import asyncio  # noqa: PLC0415

    from service import app  # noqa: PLC0415
    from service.simulator.demo import run_demo  # noqa: PLC0415

    return asyncio.run(run_demo(port=port, exit_after=exit_after, open_service=app.demo_service, echo=click.echo))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def check(as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Try the settings for real and say what to mend."""
    import asyncio  # noqa: PLC0415

    with plain_trouble():
        from service.settings import Need  # noqa: PLC0415

        settings = load(Need.SERVE)
        from service import app  # noqa: PLC0415

        results = asyncio.run(app.check(settings))
    if as_json:
        print_json([{"name": result.name, "ok": result.ok, "detail": result.detail} for result in results])
    else:
        from service.terminal import table  # noqa: PLC0415

        rows = [("ok" if result.ok else "WRONG", result.name, result.detail) for result in results]
        click.echo(table(("", "WHAT", "FOUND"), rows, width=None))
    sys.exit(0 if all(result.ok for result in results) else 1)


@cli.command()
def migrate() -> None:
    """Bring the record's schema up to date."""
    with plain_trouble():
        from service.settings import Need  # noqa: PLC0415

        settings = load(Need.STORE)
        from service import app  # noqa: PLC0415

        click.echo(app.migrate(settings))


def _started() -> "Settings":
    """Return all settings for a process that stays, with its log on standard output."""
    from service import log  # noqa: PLC0415
    from service.settings import Need  # noqa: PLC0415

    settings = load(Need.SERVE)
    log.configure(settings.log_format, settings.log_level, secrets=settings.secret_texts)
    return settings


cli.add_command(deliveries)
cli.add_command(sessions)
cli.add_command(invoices)
cli.add_command(evidence)
cli.add_command(groups)
cli.add_command(links)
cli.add_command(explain)
cli.add_command(erase)
for _command in (pause, resume, pauses):
    cli.add_command(_command)
cli.add_command(receipts)
cli.add_command(reconcile)
cli.add_command(preview)
cli.add_command(routes)
cli.add_command(schedule)
cli.add_command(statement)
cli.add_command(webhooks)
