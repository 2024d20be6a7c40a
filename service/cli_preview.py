"""`preview`: mails, texts and pages as customers would get them, into a folder to look at."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli_frame import load, now, plain_trouble, width

if TYPE_CHECKING:
    from service.preview import Shown


@click.command(short_help="Render mails, texts and invoice pages, and send nothing.")
@click.option("--kind", type=click.Choice(["mail", "sms", "page"]), help="One of these.  [default: all]")
@click.option("--locale", metavar="L", help="A language there is a catalogue for.  [default: every one]")
@click.option(
    "--transaction",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A transaction as Dintero has it, JSON or TOML.  [default: sample data]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("preview"),
    show_default=True,
    help="The folder for the files; it is created.",
)
def preview(kind: str | None, locale: str | None, file: Path | None, out: Path) -> None:
    """Render mails, texts and invoice pages with the code that sends them, and send nothing.

    BRAND_… and TEMPLATES_DIR are used where they are set; nothing has to be. Of a transaction, the language is that of
    its billing country unless --locale says otherwise.
    """
    with plain_trouble():
        shown = _shown(kind, locale, file)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for one in shown:
            (out / one.name).write_bytes(one.content)
    except OSError as exc:
        click.echo(f"{exc.filename or out}: cannot be written: {exc.strerror}.", err=True)
        raise click.exceptions.Exit(1) from None
    from service.terminal import table  # noqa: PLC0415

    click.echo(table(("FILE", "WHAT IT IS"), [(str(out / one.name), one.remark) for one in shown], width=width()))


def _shown(kind: str | None, locale: str | None, file: Path | None) -> "tuple[Shown, ...]":
    from service.settings import Need  # noqa: PLC0415

    settings = load(Need.RENDERING)
    from service import app  # noqa: PLC0415
    from service.cli_file import document_in  # noqa: PLC0415
    from service.delivery import DeliveryFailure, TransientFailure  # noqa: PLC0415
    from service.ordering import Mistaken  # noqa: PLC0415

    try:
        document = document_in(file) if file else None
        return app.preview(settings, kind=kind, locale=locale, document=document, read_at=now())
    except Mistaken as exc:
        click.echo(str(exc), err=True)
        raise click.exceptions.Exit(1) from None
    except ValueError as exc:
        click.echo(f"--locale: {exc}", err=True)
        raise click.exceptions.Exit(1) from None
    except TransientFailure:  # of an answer, it would be asked for again
        click.echo(f"{file}: is no transaction of Dintero's.", err=True)
        raise click.exceptions.Exit(1) from None
    except DeliveryFailure as failure:
        click.echo(f"{file or 'It'}: cannot be rendered: {failure.reason}.", err=True)
        raise click.exceptions.Exit(1) from None
