"""`deliveries evidence` and `evidence verify`: a file for a dispute, and whether one still holds."""

from pathlib import Path

import click

from service.cli_choice import text
from service.cli_frame import in_record, now, one, plain_trouble, program_version
from service.delivery import Dossier, Store


@click.command("evidence", short_help="Write all that is recorded of one delivery, for a dispute.")
@click.argument("reference", metavar="ID", callback=text)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; otherwise it is shown."
)
def evidence_of(reference: str, out: Path | None) -> None:
    """Write all that is recorded of one delivery as one file, for a dispute."""

    async def look(store: Store) -> Dossier:
        return await store.dossier((await one(store, reference)).id)

    with plain_trouble():
        dossier = in_record(look)
    from service.evidence import digest_of, verify  # noqa: PLC0415
    from service.evidence import evidence as written  # noqa: PLC0415

    document = written(dossier, made_at=now(), program=program_version())
    _put(out, document)
    click.echo(f"Its digest, to be noted down or sent to somebody: {digest_of(document)}", err=True)
    wrong = [finding.words for finding in verify(document) if not finding.holds]
    if wrong:
        click.echo("\n".join(("The record itself does not hold:", *wrong)), err=True)
        raise click.exceptions.Exit(1)


def _put(out: Path | None, document: str) -> None:
    if out is None:
        click.echo(document, nl=False)
        return
    try:
        out.touch(mode=0o600)
        out.write_text(document, encoding="utf-8")
    except OSError as exc:
        click.echo(f"{out} cannot be written: {exc.strerror or exc}", err=True)
        raise click.exceptions.Exit(1) from exc
    click.echo(f"Written to {out}.", err=True)


@click.group()
def evidence() -> None:
    """Look at evidence that `deliveries evidence` has written."""


@evidence.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def verify_(file: Path) -> None:
    """Compute all hashes of a file anew. Needs no settings and no database."""
    from service.evidence import NotEvidence, verify  # noqa: PLC0415

    try:
        findings = verify(file.read_bytes().decode("utf-8"))
    except (NotEvidence, UnicodeDecodeError, OSError) as exc:
        click.echo(f"{file} is not what it should be: {exc}", err=True)
        raise click.exceptions.Exit(1) from exc
    for finding in findings:
        click.echo(f"{'ok   ' if finding.holds else 'WRONG'}  {finding.words}")
    if not all(finding.holds for finding in findings):
        raise click.exceptions.Exit(1)
