"""Who delivers, and on which terms: the order in which the levels of configuration are asked, in this one place."""

from collections.abc import Awaitable
from dataclasses import dataclass, replace

from service.delivery import (
    BUILT_IN,
    ChannelDefault,
    DecidedBy,
    Explained,
    Interval,
    Level,
    Resolution,
    Term,
    Terms,
    Transaction,
    TransientFailure,
)
from service.dintero.configuration import Configuration, Document
from service.dintero.levels import CHANNEL, GROUPED, KRAVIA, TERMS, Reader, channel_of, configured

UNREAD = "not read: a file is explained without asking Dintero"
SILENT = "says nothing"
_BUILT_IN = Level(name=BUILT_IN, value=KRAVIA, where="what Dintero does when nobody says anything")
_SETTINGS = {Term.INTERVAL: "GROUP_INTERVAL", Term.DAYS_UNTIL_DUE: "GROUP_DAYS_UNTIL_DUE"}
_STANDARD = Terms()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is asked of each level: how a document is read, and what is known without reading one."""

    read: Reader
    own: tuple[Level, ...]  # what the transaction and its session say, in their order
    last: tuple[Level, ...]  # the setting, and what holds without one


class Ownership:
    """Resolves who delivers; profiles and checkout are read when the transaction and its session say nothing."""

    def __init__(
        self, configuration: Configuration, *, default: ChannelDefault, group_terms: Terms = _STANDARD
    ) -> None:
        """Take INVOICE_CHANNEL as `default`; `group_terms` are GROUP_INTERVAL and GROUP_DAYS_UNTIL_DUE."""
        self._configuration = configuration
        self._default = default
        self._group_terms = group_terms

    async def resolve(self, transaction: Transaction) -> Resolution:
        """Return the first level that says anything; raises `TransientFailure` when one cannot be read just now."""
        won = await self._decided(transaction, self._who(transaction))
        terms = await self._terms(transaction) if transaction.product_type.endswith(GROUPED) else None
        return Resolution(channel=won.value or KRAVIA, decided_by=_recorded(won), terms=terms)

    async def explain(self, transaction: Transaction) -> Explained:
        """Return all levels that are asked, also those behind the one that decides; raises as `resolve` does."""
        explained = Explained(
            product_type=transaction.product_type,
            channel=await self._all(transaction, self._who(transaction)),
        )
        if not transaction.product_type.endswith(GROUPED):
            return explained
        return replace(
            explained,
            interval=await self._all(transaction, self._term(transaction, Term.INTERVAL)),
            days_until_due=await self._all(transaction, self._term(transaction, Term.DAYS_UNTIL_DUE)),
        )

    async def _terms(self, transaction: Transaction) -> Terms:
        interval = await self._decided(transaction, self._term(transaction, Term.INTERVAL))
        days = await self._decided(transaction, self._term(transaction, Term.DAYS_UNTIL_DUE))
        return Terms(
            interval=Interval(interval.value or ""),
            interval_from=_recorded(interval),
            days_until_due=int(days.value or ""),
            days_from=_recorded(days),
        )

    async def _decided(self, transaction: Transaction, question: _Question) -> Level:
        """Return the level that decides, and ask none behind it."""
        return (await self._levels(transaction, question, until_decided=True))[-1]

    async def _all(self, transaction: Transaction, question: _Question) -> tuple[Level, ...]:
        return await self._levels(transaction, question, until_decided=False)

    async def _levels(self, transaction: Transaction, question: _Question, *, until_decided: bool) -> tuple[Level, ...]:
        """Return the levels in the order of their precedence; the first that says anything has won."""
        asked: list[Level] = []
        decided = False
        order: tuple[Level | DecidedBy, ...] = (*question.own, DecidedBy.PROFILE, DecidedBy.CHECKOUT, *question.last)
        for found in order:
            level = (
                found
                if isinstance(found, Level)
                else await self._of(found, transaction, question.read, decided=decided)
            )
            level = replace(level, won=not decided and level.value is not None)
            asked.append(level)
            decided = decided or level.won
            if decided and until_decided:
                break
        return tuple(asked)

    async def _of(self, level: DecidedBy, transaction: Transaction, read: Reader, *, decided: bool) -> Level:
        if level is DecidedBy.PROFILE and transaction.profile_id is None:
            return Level(name=level, value=None, where="none is named")
        profile = transaction.profile_id if level is DecidedBy.PROFILE else None
        reading = self._configuration.profile(profile) if profile else self._configuration.checkout()
        return await _read_level(level, reading, transaction.product_type, read, decided=decided)

    def _who(self, transaction: Transaction) -> _Question:
        said = {finding.level: finding for finding in transaction.findings}
        silent = {DecidedBy.TRANSACTION: f"no {CHANNEL}", DecidedBy.SESSION: SILENT}
        own = tuple(
            Level(name=level, value=said[level].value, where=said[level].where)
            if level in said
            else Level(name=level, value=None, where=silent[level])
            for level in (DecidedBy.TRANSACTION, DecidedBy.SESSION)
        )
        return _Question(read=channel_of, own=own, last=(self._channel_setting(transaction.product_type), _BUILT_IN))

    def _channel_setting(self, product_type: str) -> Level:
        by_product = dict(self._default.by_product).get(product_type)
        bare = self._default.default
        reaches = by_product is None and bare is not None and not product_type.endswith(GROUPED)
        where = "INVOICE_CHANNEL"
        if by_product is None and not reaches:
            where = f"INVOICE_CHANNEL {'is for single invoices alone' if bare else SILENT}"
        return Level(name=DecidedBy.SETTING, value=bare if reaches else by_product, where=where)

    def _term(self, transaction: Transaction, term: Term) -> _Question:
        found = next((found for found in transaction.term_findings if found.term is term), None)
        own = Level(
            name=DecidedBy.SESSION, value=found.value if found else None, where=found.where if found else SILENT
        )
        terms = self._group_terms
        value = str(terms.interval if term is Term.INTERVAL else terms.days_until_due)
        setting = Level(name=DecidedBy.SETTING, value=value, where=_SETTINGS[term])
        return _Question(read=TERMS[term], own=(own,), last=(setting,))


async def _read_level(
    name: DecidedBy, reading: Awaitable[Document | None], product_type: str, read: Reader, *, decided: bool
) -> Level:
    """Return what a document says; one that cannot be read just now is no trouble once a level above has decided."""
    try:
        document = await reading
    except TransientFailure as failure:
        if not decided:
            raise
        return Level(name=name, value=None, where=f"could not be read: {failure.reason}", unread=True)
    if document is None:
        return Level(name=name, value=None, where=UNREAD, unread=True)
    said = configured(document, product_type, read)
    return Level(name=name, value=said.value if said else None, where=said.where if said else SILENT)


def _recorded(level: Level) -> DecidedBy:
    """Return the level as the record knows it: what nobody configured counts as the setting's."""
    return DecidedBy.SETTING if level.name == BUILT_IN else DecidedBy(level.name)
