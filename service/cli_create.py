"""`sessions create` and `invoices create`: checkout sessions, and invoices that the merchant initiates."""

import asyncio
import errno
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli_frame import is_terminal, load, plain_trouble, print_json, say

if TYPE_CHECKING:
    from service.batch import Row
    from service.batching import Batch
    from service.ordering import Created, Creation, Opened
    from service.results import Entry
    from service.settings import Settings

_AGAIN = "Look in Dintero's Backoffice; the same file again creates no second one."
_AGAIN_TWICE = "Look in Dintero's Backoffice BEFORE you run it again: with two steps only a look prevents a second one."
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """How `invoices create` was given."""

    file: Path
    two_step: bool
    profile: str | None
    dry_run: bool
    as_json: bool
    retry_failed: bool


@click.group()
def sessions() -> None:
    """Create checkout sessions."""


@click.group()
def invoices() -> None:
    """Create invoices without the customer: one, or a batch."""


@sessions.command("create", short_help="Create a session from FILE, and print where the customer pays.")
@click.argument("file", type=_FILE)
@click.option("--profile", metavar="ID", help="The profile of the session; it wins over the file's profile_id.")
@click.option("--dry-run", is_flag=True, help="Check the file, print what would be sent, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def create_session(file: Path, profile: str | None, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001  # click's shape
    """Create a checkout session from FILE, JSON or TOML, and print where the customer pays.

    FILE is in Dintero's own form (url, order, configuration), or has product and its options at the top. The callback
    URL is filled in from PUBLIC_URL, and all is checked before anything is sent.
    """
    with _trouble():
        settings = _settings()
        from service.cli_file import document_in  # noqa: PLC0415
        from service.ordering import checkout_session  # noqa: PLC0415

        creation = checkout_session(document_in(file), public_url=settings.public_url, profile=profile)
        _warn([creation])
        if dry_run:
            _show_calls([creation], as_json=as_json)
            return
        opened = asyncio.run(_open(settings, creation))
    if as_json:
        print_json({"merchant_reference": creation.reference, "session_id": opened.id, "url": opened.url})
    else:
        click.echo(f"Session {opened.id}: {opened.url or 'Dintero gave no address of it'}")


@invoices.command("create", short_help="Create an invoice from FILE, or a batch from a CSV.")
@click.argument("file", type=_FILE)
@click.option("--two-step", is_flag=True, help="Create a session first and pay it then, instead of one call.")
@click.option("--profile", metavar="ID", help="With --two-step: the profile of the session.")
@click.option("--dry-run", is_flag=True, help="Check the file, print what would be sent, and send nothing.")
@click.option(
    "--result", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="A batch's result file."
)
@click.option("--retry-failed", is_flag=True, help="Create what failed before under the same merchant reference again.")
@click.option("--yes", "sure", is_flag=True, help="A batch without asking.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def create_invoice(result: Path | None, sure: bool, **given: Any) -> None:  # noqa: FBT001  # click's shape
    """Create an invoice from FILE, JSON or TOML, or a batch: a CSV with one on each line.

    All is checked before anything is sent. A merchant reference is used once: a lost answer is looked up by it and
    never asked for again. A batch keeps what became of each line in its result file (FILE.result.csv unless
    told), asks before it begins, and goes on where it stopped when it is run again.
    """
    asked = _Asked(**given)
    if asked.profile is not None and not asked.two_step:
        raise click.UsageError("--profile needs --two-step: one call knows no profile.")
    is_batch = asked.file.suffix.lower() == ".csv"
    if (result is not None or sure) and not is_batch:
        raise click.UsageError("--result and --yes are for a batch: a file that ends in .csv.")
    if is_batch and asked.profile is not None:
        raise click.UsageError("--profile is for one invoice.")
    result = result or asked.file.with_suffix(".result.csv")
    if is_batch and result.resolve() == asked.file.resolve():
        raise click.UsageError("--result would overwrite the batch itself.")
    with _trouble():
        settings = _settings()
        status = _batch(settings, asked, result, sure=sure) if is_batch else _single(settings, asked)
    sys.exit(status)


# --- one -------------------------------------------------------------------------------------------------------------


async def _open(settings: "Settings", creation: "Creation") -> "Opened":
    from service.app import open_creating  # noqa: PLC0415

    async with open_creating(settings) as creating:
        return await creating.open(creation)


def _single(settings: "Settings", asked: _Asked) -> int:
    from service.cli_file import document_in  # noqa: PLC0415
    from service.ordering import Result, merchant_invoice  # noqa: PLC0415

    creation = merchant_invoice(
        document_in(asked.file), public_url=settings.public_url, two_step=asked.two_step, profile=asked.profile
    )
    _warn([creation])
    if asked.dry_run:
        _show_calls([creation], as_json=asked.as_json, again=[creation.reference] if asked.retry_failed else ())
        return 0
    created = asyncio.run(_create(settings, creation, again=asked.retry_failed))
    if asked.as_json:
        print_json({"merchant_reference": creation.reference, **_json(created)})
    else:
        good = created.result in (Result.CREATED, Result.EXISTED)
        click.echo(_words(creation, created), err=not good)
    return 0 if created.result in (Result.CREATED, Result.EXISTED) else 1


async def _create(settings: "Settings", creation: "Creation", *, again: bool) -> "Created":
    from service.app import open_creating  # noqa: PLC0415
    from service.ordering import Result  # noqa: PLC0415

    async with open_creating(settings) as creating:
        failures: list[str] = []
        while again and (found := await creating.look(creation, but=failures)) is not None:
            if found.result is not Result.FAILED or found.transaction_id in (None, *failures):
                return found
            failures.append(str(found.transaction_id))
        return await creating.invoice(creation, again=again, but=failures)


def _words(creation: "Creation", created: "Created") -> str:
    from service.ordering import Result, Way  # noqa: PLC0415

    known = f"{created.transaction_id} ({created.status})" if created.transaction_id else "no transaction"
    reason = (created.reason or "").rstrip(".")
    return {
        Result.CREATED: f"Created {known} for {creation.reference}.",
        Result.EXISTED: f"There already: {known} has the reference {creation.reference}. Nothing was created.",
        Result.FAILED: f"Failed, {known}: {reason}.",
        Result.UNCONFIRMED: f"{reason}. It is NOT KNOWN whether {creation.reference} was created; a look has not "
        f"found it. {_AGAIN_TWICE if creation.way is Way.TWO_STEP else _AGAIN}",
    }[created.result]


def _json(created: "Created") -> dict[str, Any]:
    return {
        "result": created.result.value,
        "transaction_id": created.transaction_id,
        "status": created.status,
        "reason": created.reason,
    }


# --- a batch ---------------------------------------------------------------------------------------------------------


def _batch(settings: "Settings", asked: _Asked, result: Path, *, sure: bool) -> int:
    from service.batch import read_batch  # noqa: PLC0415
    from service.batching import is_again, is_sent, unchanged  # noqa: PLC0415
    from service.cli_file import text_in  # noqa: PLC0415
    from service.results import known  # noqa: PLC0415

    rows = read_batch(text_in(asked.file), public_url=settings.public_url, two_step=asked.two_step)
    _warn([row.creation for row in rows])
    before = known(result)
    unchanged(rows, before.get)
    if asked.dry_run:
        failed = [name for name, entry in before.items() if is_again(entry)]
        _show_calls([row.creation for row in rows], as_json=asked.as_json, again=failed)
        return 0
    # What a process was about to send when it died is perhaps sent again, too.
    over = [
        name
        for name, entry in before.items()
        if not is_sent(entry, retry_failed=asked.retry_failed) and entry.state != "sending"
    ]
    _agree(settings, rows, over, sure=sure)
    try:
        stopped, entries = asyncio.run(_run(settings, asked, rows, result))
    except KeyboardInterrupt:
        say(f"Stopped. Run it again to go on: {result} knows how far it came.", err=True)
        return 1
    counts = Counter(entry.state.value for entry in entries)
    done = counts["created"] + counts["existed"] == len(rows)
    if asked.as_json:
        lines = [_entry_json(entry) for entry in entries]
        print_json({"counts": dict(counts), "stopped": stopped, "result_file": str(result), "invoices": lines})
    else:
        _show(entries, len(rows), result, stopped)
    return 0 if done else 1


async def _run(
    settings: "Settings", asked: _Asked, rows: "Sequence[Row]", result: Path
) -> "tuple[str | None, list[Entry]]":
    from service.app import open_batch  # noqa: PLC0415

    entries: list[Entry] = []
    async with open_batch(settings, rows, result, retry_failed=asked.retry_failed) as batch:
        stream = sys.stderr
        bar = click.progressbar(length=len(rows), label="Creating", file=stream, hidden=not is_terminal(stream))
        with bar as shown:

            def told(entry: "Entry") -> None:
                entries.append(entry)
                shown.update(1)

            stopped = await batch.run(told)
        _tidy(batch, rows)
    return stopped, entries


def _tidy(batch: "Batch", rows: "Sequence[Row]") -> None:
    batch.results.tidy([row.creation.reference for row in rows])


def _agree(settings: "Settings", rows: "Sequence[Row]", over: Collection[str], *, sure: bool) -> None:
    """Ask whether to begin, with what it comes to; nothing is created for the references of `over`."""
    from service.terminal import money  # noqa: PLC0415

    if sure:
        return
    left = [row.creation for row in rows if row.creation.reference not in over]
    sums: Counter[str] = Counter()
    for creation in left:
        sums[creation.currency] += creation.amount
    total = " and ".join(money(amount, currency) for currency, amount in sorted(sums.items())) or "nothing"
    words = f"{len(left)} to create of {len(rows)} invoices, {total}, for account {settings.account_id}"
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        raise click.UsageError(f"{words}: --yes creates them; there is no terminal to ask on.")
    click.confirm(f"{words}. Create them?", abort=True, err=True)


def _show(entries: "Sequence[Entry]", count: int, result: Path, stopped: str | None) -> None:
    from service.terminal import table  # noqa: PLC0415

    wrong = [entry for entry in entries if entry.state not in ("created", "existed")]
    if wrong:
        rows = [(e.merchant_reference, e.state.value, e.transaction_id or "-", e.reason) for e in wrong]
        click.echo(table(("REFERENCE", "STATE", "TRANSACTION", "REASON"), rows, width=None))
    counts = Counter(entry.state.value.replace("_", " ") for entry in entries)
    counts["not reached"] = count - len(entries)
    words = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
    click.echo(f"{count} invoices: {words}. Each is in {result}.")
    if stopped:
        click.echo(f"Stopped: {stopped.rstrip('.')}. Run it again to go on.", err=True)
    if counts["unconfirmed"]:
        click.echo("Unconfirmed ones are looked for again, and never sent again, when you run it again.", err=True)


def _entry_json(entry: "Entry") -> dict[str, Any]:
    return {
        "merchant_reference": entry.merchant_reference,
        "result": entry.state.value,
        "transaction_id": entry.transaction_id or None,
        "status": entry.status or None,
        "reason": entry.reason or None,
    }


# --- both ------------------------------------------------------------------------------------------------------------


@contextmanager
def _trouble() -> Iterator[None]:
    """As `plain_trouble`, for what may be wrong with the file and the provider, too."""
    from service.delivery import DeliveryFailure  # noqa: PLC0415
    from service.ordering import Mistaken  # noqa: PLC0415
    from service.results import Unusable  # noqa: PLC0415

    with plain_trouble():
        try:
            yield
        except Mistaken as exc:
            for mistake in exc.mistakes:
                click.echo(mistake, err=True)
            raise click.exceptions.Exit(2) from None
        except DeliveryFailure as failure:
            click.echo(f"{failure.reason.rstrip('.')}. No invoice was created.", err=True)
            raise click.exceptions.Exit(1) from None
        except Unusable as exc:
            click.echo(f"{exc}.", err=True)
            raise click.exceptions.Exit(1) from None
        except OSError as exc:  # of the result file: nothing else is opened by a name that somebody gave
            if exc.filename is None and exc.errno != errno.ENOSPC:
                raise
            named = f"{exc.filename}: " if exc.filename is not None else ""
            click.echo(f"The result file cannot be used: {named}{exc.strerror}.", err=True)
            raise click.exceptions.Exit(1) from None


def _settings() -> "Settings":
    from service.settings import Need  # noqa: PLC0415

    return load(Need.SERVE)


def _warn(creations: "Sequence[Creation]") -> None:
    for warning in dict.fromkeys(warning for creation in creations for warning in creation.warnings):
        click.echo(f"Warning: {warning}", err=True)


def _show_calls(creations: "Sequence[Creation]", *, as_json: bool, again: Collection[str] = ()) -> None:
    """Print the requests as they would be sent, `again` for those references; no secret is in them."""
    import json  # noqa: PLC0415

    calls = [
        {
            "method": "POST",
            "path": f"/{path}",
            "headers": {"Dintero-Feature-Toggles": toggles} if toggles else {},
            "body": json.loads(body),
        }
        for one in creations
        for path, body in zip(one.paths, filter(None, (one.body, one.pay)), strict=True)
        for toggles in (one.toggles(again=one.reference in again, opening=path != one.paths[-1]),)
    ]
    if as_json:
        print_json(calls)
        return
    for call in calls:
        click.echo(f"{call['method']} {call['path']}")
        for name, value in call["headers"].items():
            click.echo(f"{name}: {value}")
        click.echo(json.dumps(call["body"], indent=2, ensure_ascii=False) + "\n")
