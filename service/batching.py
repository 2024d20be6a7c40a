"""Sending a batch: what each line needs, given what is known of it, and in which order that is made durable.

Never invoiced twice: before a line is sent the result file says so, and whoever finds it like that looks first.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from service.batch import Row
from service.delivery import Clock, DeliveryFailure
from service.ordering import Created, Creation, Mistaken, NotCreated, Result
from service.results import Entry, ResultFile, State

_OVER = (State.CREATED, State.EXISTED)
_UNCHANGED = (*_OVER, State.SENDING, State.UNCONFIRMED)  # what was or may have been sent stays as it was


class Invoices(Protocol):
    """Who creates; see `service.dintero.creating`."""

    async def invoice(self, creation: Creation, *, again: bool = False, but: Collection[str] = ()) -> Created:
        """Create an invoice once; raises `NotCreated`."""

    async def look(self, creation: Creation, *, but: Collection[str] = ()) -> Created | None:
        """Return what has the merchant reference; raises `DeliveryFailure`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A run over a batch. `settled` are the seconds after which a look shows what was begun."""

    rows: Sequence[Row]
    results: ResultFile
    invoices: Invoices
    clock: Clock
    settled: float
    retry_failed: bool = False

    async def run(self, told: Callable[[Entry], None]) -> str | None:
        """Bring every line as far as it goes; return why it stopped before the end, if it did.

        `told` hears of each line's entry, those of lines that need nothing, too. An outage must not make every line one
        that nobody knows of: two lost answers in a row end the run.
        """
        lost = 0
        for row in self.rows:
            entry = self.results.of(row.creation.reference)
            sends = entry is None or is_sent(entry, retry_failed=self.retry_failed)
            if sends:
                entry = await self._send(row, entry)
            elif entry and entry.state in (State.SENDING, State.UNCONFIRMED):
                entry = await self._resolve(row, entry)
            assert entry is not None
            told(entry)
            if entry.state is State.NOT_SENT and entry.status == _STOPS:
                return entry.reason
            if sends:
                lost = lost + 1 if entry.state is State.UNCONFIRMED else 0
            if lost == _LOST_IN_A_ROW:
                return "Dintero's answers are lost, so that it is not known what was created; run it again later"
        return None

    async def _send(self, row: Row, before: Entry | None) -> Entry:
        failures = before.failures if before else ()
        if before and before.state is State.FAILED and before.transaction_id:
            failures = tuple(dict.fromkeys((*failures, before.transaction_id)))
        again = before is not None and is_again(before)
        begun = self._entry(row, State.SENDING, failures=failures, again=again)
        self.results.write(begun)
        try:
            created = await self.invoices.invoice(row.creation, again=again, but=failures)
        except NotCreated as exc:
            status = _STOPS if exc.ours else ""
            return self._kept(replace(begun, state=State.NOT_SENT, status=status, reason=exc.reason))
        return self._kept(_after(begun, created))

    async def _resolve(self, row: Row, entry: Entry) -> Entry:
        """Look up what may have been sent. Only a process that died before it sent leaves something to be sent."""
        if entry.state is State.SENDING:
            age = (self.clock.now() - entry.at).total_seconds()
            if age < self.settled:  # it may still be on its way; a clock that went back says nothing of how long
                await self.clock.sleep(self.settled - max(age, 0))
        try:
            found = await self.invoices.look(row.creation, but=entry.failures)
        except DeliveryFailure as exc:
            return self._kept(replace(entry, reason=exc.reason))
        if found is not None:
            state = State.CREATED if found.result is Result.EXISTED else State(found.result.value)
            return self._kept(replace(_after(entry, found), state=state))  # it was us who sent it
        return await self._send(row, entry) if entry.state is State.SENDING else entry

    def _entry(self, row: Row, state: State, *, failures: tuple[str, ...], again: bool) -> Entry:
        return Entry(
            merchant_reference=row.creation.reference,
            state=state,
            amount_minor=row.creation.amount,
            currency=row.creation.currency,
            at=self.clock.now(),
            digest=row.digest,
            failures=failures,
            again=again,
        )

    def _kept(self, entry: Entry) -> Entry:
        self.results.write(entry)
        return entry


_LOST_IN_A_ROW = 2
_STOPS = "stopped"
"""The status of a line that was not sent because nothing can be just now."""


def is_sent(entry: Entry, *, retry_failed: bool) -> bool:
    """Tell whether a run sends a line that is certainly not created."""
    return entry.state is State.NOT_SENT or (entry.state is State.FAILED and retry_failed)


def is_again(entry: Entry) -> bool:
    """Tell whether a line, if it is sent, is sent after a failure."""
    return bool(entry.failures) or entry.again or entry.state is State.FAILED


def _after(entry: Entry, created: Created) -> Entry:
    return replace(
        entry,
        state=State(created.result.value),
        transaction_id=created.transaction_id or "",
        status=created.status or "",
        reason=created.reason or "",
    )


def unchanged(rows: Sequence[Row], entries: Callable[[str], Entry | None]) -> None:
    """Raise `Mistaken` when a line that was or may have been sent is another by now."""
    mistakes = []
    for row in rows:
        entry = entries(row.creation.reference)
        if entry is not None and entry.state in _UNCHANGED and entry.digest != row.digest:
            mistakes.append(f"line {row.line}: was sent before ({entry.state}) with other content")
    if mistakes:
        raise Mistaken(tuple(mistakes))
