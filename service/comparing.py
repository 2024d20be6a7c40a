"""Holding what was billed against what was expected, once an hour, and writing down where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import structlog

from service.delivery import Job, Member, Members, Store
from service.groups import Calendar, compared

EVERY = 3600.0
"""Seconds between two turns."""
_log = structlog.get_logger()


async def unsettled(store: Store) -> tuple[Member, ...]:
    """Return the groups of which a purchase is open, or was closed lately, each whole."""
    found = await store.members(Members(unsettled=True))
    meant = {member.purchase.group for member in found}
    periods = sorted({member.purchase.period_start for member in found})
    whole = [one for start in periods for one in await store.members(Members(period_start=start))]
    return tuple(member for member in whole if member.purchase.group in meant)


async def with_invoices(store: Store, members: Sequence[Member]) -> tuple[Member, ...]:
    """Add what else is on their invoices, whatever its group: half an invoice would be compared with itself."""
    found = {member.purchase.transaction_id: member for member in members}
    for invoice_id in sorted({member.purchase.invoice_id for member in members} - {None}, key=str):
        for member in await store.members(Members(invoice_id=invoice_id)):
            found.setdefault(member.purchase.transaction_id, member)
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Writes the remarks of an account's purchases; who is told of them, and that once, is up to the concerns."""

    store: Store
    account_id: str
    timezone: ZoneInfo
    holiday_country: str | None = None

    async def turn(self, job: Job) -> None:
        """Compare what is not settled; write what has changed, which may be done twice. Raises `StoreUnavailable`.

        What an earlier release, which still runs while this one is rolled out, has skipped is looked at again first.
        """
        if again := await self.store.adopt_skipped(self.account_id):
            _log.info("service.adopted", count=again)
        found = await unsettled(self.store)
        own = [member for member in found if member.purchase.account_id == self.account_id]
        calendar = Calendar(now=job.now, zone=self.timezone, holiday_country=self.holiday_country)
        await self._write(own, compared(await with_invoices(self.store, own), calendar))

    async def _write(self, members: Sequence[Member], said: dict[str, str | None]) -> None:
        differ = changed = 0
        for member in members:
            words = said.get(member.purchase.transaction_id)  # of what was voided nothing is said
            differ += words is not None
            if words != member.purchase.remark and member.delivery.erased_at is None:
                changed += 1
                await self.store.remark(member.purchase.transaction_id, words)
        if changed:
            _log.info("service.compared", purchases=len(members), differ=differ, changed=changed)
