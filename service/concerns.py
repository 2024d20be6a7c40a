"""What a person must know, in words, and what to type: pure functions of what the record and the settings tell."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from textwrap import wrap

from service.delivery import Calls, Case, Concern, Condition
from service.money import in_units

DIGEST_AT = time(7, 30)
_OPENS, _CLOSES = time(8), time(18)
_WORKING_DAYS = 5
_WIDTH = 76
_NAMED = 10  # cases of one condition in a message; the rest is a command away
_IN_A_LINE = 3
_ABOUT_GROUPS = frozenset({Condition.NOT_BILLED, Condition.GROUP_DIFFERS})
_ABOUT_NO_INVOICE = frozenset({Condition.SUBSCRIPTION, Condition.SILENCE})


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a condition means to a person. `urgent`: told at once. `mend` holds commands, ID for what stands above."""

    title: str
    short: str  # after a number of invoices, or by itself
    meaning: str
    mend: tuple[str, ...]
    mend_all: str | None = None  # when there are several
    urgent: bool = True
    works: bool = True  # the service does its work all the same; only these deliveries need a person


ABOUT: dict[Condition, About] = {
    Condition.PAUSED: About(
        title="Sending is paused",
        short="paused",
        meaning="Nothing goes out this way until the fault is mended. A pause that the service began ends by itself "
        "when a try succeeds; a person's ends with resume. `provider` is Dintero: all deliveries wait.",
        mend=("check", "resume CHANNEL"),
        works=False,
    ),
    Condition.SUBSCRIPTION: About(
        title="Dintero's webhook subscription is gone",
        short="Dintero's webhook subscription is gone",
        meaning="Dintero deletes a subscription whose calls fail. What happens there is learned late, by looking, "
        "until there is one again.",
        mend=("check", "webhooks ensure"),
        works=False,
    ),
    Condition.SILENCE: About(
        title="Dintero does not call",
        short="Dintero does not call",
        meaning="No callback has come for a long time. If nothing was sold on invoice there is nothing to do; "
        "else the callback URL, the proxy or the signature secret is wrong.",
        mend=("check", "statement"),
        works=False,
    ),
    Condition.OVERDUE: About(
        title="Due, and nobody takes them",
        short="overdue",
        meaning="They should have been looked at more than five minutes ago: no worker runs, or there are too few.",
        mend=("check", "deliveries list --outcome open"),
        urgent=False,
        works=False,
    ),
    Condition.BOUNCED: About(
        title="Not delivered after all",
        short="not delivered after all",
        meaning="A message that was accepted came back, or was reported as not delivered. The next channel is tried "
        "once; if it stopped, the customer has no invoice, and its collection may have begun.",
        mend=("deliveries show ID", "deliveries resend ID --to ADDRESS"),
    ),
    Condition.UNDELIVERED: About(
        title="Collected, but not delivered",
        short="collected but not delivered",
        meaning="The collection has begun, and the customer has no invoice: a dispute in the making.",
        mend=("deliveries show ID", "deliveries resend ID --to ADDRESS"),
    ),
    Condition.FAILED: About(
        title="Did not go out",
        short="did not go out",
        meaning="Nothing more is tried by itself. Mend what the reason says, then retry; resend --to takes another "
        "address; cancel if nobody is to get it.",
        mend=("deliveries retry ID", "deliveries resend ID --to ADDRESS", "deliveries cancel ID"),
        mend_all="deliveries retry --outcome failed",
    ),
    Condition.UNCONFIRMED: About(
        title="Perhaps delivered",
        short="perhaps delivered",
        meaning="The message was handed over and the answer was lost. Ask the other side, or the customer, by the "
        "Message-ID that show tells; then say what you found.",
        mend=(
            "deliveries show ID",
            'deliveries resolve ID --delivered --reason "…"',
            'deliveries resolve ID --not-delivered --reason "…"',
        ),
    ),
    Condition.UNCAPTURED: About(
        title="Delivered, but not captured",
        short="delivered but not captured",
        meaning="The customer has the invoice, and its collection has not begun: no money comes of it yet.",
        mend=("deliveries show ID", "deliveries retry ID"),
    ),
    Condition.VOIDED: About(
        title="Voided after the customer had the invoice",
        short="voided after delivery",
        meaning="The customer holds an invoice that nobody collects. Tell them not to pay it.",
        mend=("deliveries show ID",),
    ),
    Condition.NOBODY: About(
        title="Nobody delivers these",
        short="delivered by nobody",
        meaning="Nothing says that the invoices are yours to deliver, and Kravia has not begun to collect. Set "
        "invoice_channel to merchant at Dintero, or DELIVERY_INVOICE_CHANNEL here, then retry.",
        mend=("deliveries retry ID",),
        works=False,
    ),
    Condition.HELD: About(
        title="Held back",
        short="held back",
        meaning="They are older than this record, so the customer may have had them before. Find out; then release "
        "them from a day on, or cancel.",
        mend=("reconcile --since DATE --dry-run", "reconcile --since DATE --yes", "deliveries cancel ID"),
    ),
    Condition.NOT_BILLED: About(
        title="Purchases that were not billed",
        short="not billed",
        meaning="Their invoice should have been issued two days ago, by either of the rules that Dintero gives. Ask "
        "Dintero or Kravia; it is sent when it shows. They fail when DELIVERY_GROUP_GIVE_UP_DAYS have passed.",
        mend=("groups show ID",),
    ),
    Condition.GROUP_DIFFERS: About(
        title="Billed otherwise than expected",
        short="billed otherwise than expected",
        meaning="A purchase is missing, on an invoice that it does not belong to, or a date is another one. The "
        "invoice goes out all the same. It leaves this list three days after it was done with.",
        mend=("groups show ID",),
    ),
    Condition.IN_DOUBT: About(
        title="Waiting to be sent once more",
        short="to be sent once more",
        meaning="The answer to a message was lost; the same message goes out again by itself. Nothing to do.",
        mend=("deliveries show ID",),
        urgent=False,
    ),
}
"""Every condition, in the order in which a person should read of them."""

URGENT = tuple(condition for condition, about in ABOUT.items() if about.urgent)
_MENDS_ITSELF = frozenset({Condition.IN_DOUBT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """Whose service it is, and when and where a message is read."""

    account_id: str
    merchant: str
    now: datetime
    timezone: tzinfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message to those who run the service: its subject, its text, and what it is about."""

    kind: str  # "urgent" or "digest"
    account_id: str
    at: datetime
    subject: str
    text: str
    concerns: tuple[Concern, ...]


def in_order(concerns: Iterable[Concern]) -> tuple[Concern, ...]:
    """Return concerns with what matters most first."""
    places = list(ABOUT)
    return tuple(sorted(concerns, key=lambda concern: places.index(concern.condition)))


def urgent_notice(concerns: Iterable[Concern], heading: Heading) -> Notice:
    """Return what is told at once."""
    return _notice("urgent", in_order(concerns), heading)


def digest(concerns: Iterable[Concern], heading: Heading) -> Notice | None:
    """Return the morning's message, or None when nothing needs a person."""
    told = in_order(concern for concern in concerns if concern.condition not in _MENDS_ITSELF)
    return _notice("digest", told, heading) if told else None


def outage_notice(reason: str, since: datetime, heading: Heading) -> Notice:
    """Return that the record does not answer."""
    meaning = (
        "The record does not answer or cannot be written, so nothing is delivered, and callbacks are answered with "
        "503; Dintero calls again, up to 20 times. Look at the disk or the database. Work goes on by itself."
    )
    body = ["THE RECORD DOES NOT ANSWER", *wrap(meaning, _WIDTH), ""]
    body += [f"  since {_moment(since, heading.timezone)}", *_indented(reason), "", "  merchant-delivery check"]
    return Notice(
        kind="urgent",
        account_id=heading.account_id,
        at=heading.now,
        subject=_subject("urgent", "the record does not answer", heading),
        text=_text([_opening("urgent", heading), *body]),
        concerns=(),
    )


def _notice(kind: str, concerns: tuple[Concern, ...], heading: Heading) -> Notice:
    lines = [_opening(kind, heading)]
    for concern in concerns:
        lines += [*_section(concern, heading), ""]
    lines.append(_closing(kind))
    return Notice(
        kind=kind,
        account_id=heading.account_id,
        at=heading.now,
        subject=_subject(kind, headline(concerns), heading),
        text=_text(lines),
        concerns=concerns,
    )


def _subject(kind: str, told: str, heading: Heading) -> str:
    return f"{'[urgent] ' if kind == 'urgent' else ''}{heading.merchant}: {told}{_if_test(heading)}"


def _opening(kind: str, heading: Heading) -> str:
    what = "This needs a person now" if kind == "urgent" else "What needs a person this morning"
    when = f"{_moment(heading.now, heading.timezone)} ({heading.timezone})"
    return f"{what}: {heading.merchant}, {heading.account_id}{_if_test(heading)}, {when}\n"


def _if_test(heading: Heading) -> str:
    return "" if heading.account_id.startswith("P") else " (test account)"


def _closing(kind: str) -> str:
    if kind == "urgent":
        when = "Each of these is told once like this, and every morning until it is mended."
    else:
        when = "This comes at 7:30 on every day on which something needs a person."
    typed = (
        "ID is the invoice number or the transaction id. In a container, put\n`docker exec delivery` before a command."
    )
    return f"{typed}\n{when}"


def _text(lines: Iterable[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def headline(concerns: Sequence[Concern]) -> str:
    """Return one line about the first three, and how many more there are."""
    told = [_counted(concern) for concern in concerns[:_IN_A_LINE]]
    more = len(concerns) - len(told)
    return ", ".join([*told, *([f"and {more} more"] if more else [])])


def _counted(concern: Concern) -> str:
    short = ABOUT[concern.condition].short
    if concern.condition is Condition.PAUSED:
        return f"{', '.join(one.subject for one in concern.cases)} {short}"
    if concern.condition in _ABOUT_NO_INVOICE:
        return short
    noun = "group" if concern.condition in _ABOUT_GROUPS else "invoice"
    return f"{concern.count} {noun}{'s' if concern.count > 1 else ''} {short}"


def _section(concern: Concern, heading: Heading) -> Iterator[str]:
    about = ABOUT[concern.condition]
    title = about.title if concern.condition in _ABOUT_NO_INVOICE else f"{about.title}: {concern.count}"
    yield title.upper()
    yield from wrap(about.meaning, _WIDTH)
    yield ""
    shown = concern.cases[:_NAMED]
    for reason in dict.fromkeys(one.reason for one in shown):
        yield from _indented(reason, "  ")
        yield from (_line(one, heading) for one in shown if one.reason == reason)
    if concern.count > len(shown):
        yield f"    … and {concern.count - len(shown)} more"
    yield ""
    only = concern.cases[0] if len(concern.cases) == 1 else None
    commands = [*about.mend, *([about.mend_all] if about.mend_all and only is None else [])]
    yield from (f"  merchant-delivery {_filled(command, concern.condition, only)}" for command in commands)


def _filled(command: str, condition: Condition, only: Case | None) -> str:
    """Return a command ready to type, where there is only one thing that it can be about."""
    if only is None or not only.subject:
        return command
    if condition is Condition.PAUSED:
        return command.replace("CHANNEL", only.subject)
    return command.replace("ID", only.subject if condition in _ABOUT_GROUPS else only.invoice_number or only.subject)


def _line(one: Case, heading: Heading) -> str:
    amount = f"{in_units(one.amount, one.currency)} {one.currency}" if one.amount and one.currency else None
    since = f"since {_short_moment(one.since, heading)}" if one.since else None
    by, other = f"by {one.by}" if one.by else None, one.subject if one.invoice_number else None
    named = (one.invoice_number or one.subject, amount, since, by, other)
    return "    " + "   ".join(word for word in named if word)


def _indented(text: str | None, indent: str = "    ") -> list[str]:
    return wrap(text or "", _WIDTH, initial_indent=indent, subsequent_indent=indent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A line of `check` about the record; `ok` while the service does its work."""

    name: str
    ok: bool
    detail: str


def findings(concerns: Sequence[Concern], zone: tzinfo) -> tuple[Finding, ...]:
    """Return a line for each paused lane and all else that keeps the service from its work, and one for deliveries."""
    found = []
    for concern in concerns:
        if concern.condition is Condition.PAUSED:
            found += [_pause(one, zone) for one in concern.cases]
        elif not ABOUT[concern.condition].works:
            found.append(Finding(name=concern.condition.value.replace("_", " "), ok=False, detail=_told(concern, zone)))
    waiting = [concern for concern in concerns if ABOUT[concern.condition].works]
    told = "; ".join(map(_counted, waiting))
    return (*found, Finding(name="deliveries", ok=True, detail=told or "none needs a person"))


def _pause(one: Case, zone: tzinfo) -> Finding:
    whom = f"by {one.by}" if one.by else "by the service, which tries again by itself"
    since = f" since {_moment(one.since, zone)}" if one.since else ""
    mend = f"`merchant-delivery resume {one.subject}`"
    then = f"When it may go on: {mend}" if one.by else f"Mend that; {mend} tries at once"
    detail = f"paused{since} {whom}: {(one.reason or '').rstrip('.')}. {then}."
    return Finding(name=f"pause {one.subject}", ok=False, detail=detail)


def _told(concern: Concern, zone: tzinfo) -> str:
    about = ABOUT[concern.condition]
    one = concern.cases[0]
    newest = ", ".join(
        word
        for word in (
            one.invoice_number or one.subject,
            f"since {_moment(one.since, zone)}" if one.since else None,
            one.reason,
        )
        if word
    )
    counted = about.title if concern.condition in _ABOUT_NO_INVOICE else f"{about.title}: {concern.count}"
    commands = " or ".join(f"`merchant-delivery {command}`" for command in about.mend if command != "check")
    return f"{counted}, {newest.rstrip('.')}. {about.meaning} Then: {commands}."


def _short_moment(at: datetime, heading: Heading) -> str:
    moment, year = _moment(at, heading.timezone), f" {heading.now.astimezone(heading.timezone):%Y} "
    return moment.replace(year, " ")


def _moment(at: datetime, zone: tzinfo) -> str:
    local = at.astimezone(zone)
    return f"{local:%a} {local.day} {local:%b %Y %H:%M}"


# --- silence ---------------------------------------------------------------------------------------------------------


def silence(calls: Calls, *, hours: float, now: datetime, zone: tzinfo) -> Concern | None:
    """Return that the provider has not called for so many working hours (0: never said)."""
    if not hours or working_hours(calls.last_at, now, zone) < hours:
        return None
    reason = f"no callback for {hours:g} working hours"
    if calls.missed:
        reason += f", and {calls.missed} transactions were found without one meanwhile: callbacks do not arrive"
    case = Case(subject="", reason=reason, since=calls.last_at)
    return Concern(condition=Condition.SILENCE, count=1, cases=(case,))


def working_hours(since: datetime, until: datetime, zone: tzinfo) -> float:
    """Return the hours from Monday to Friday between 8 and 18 o'clock in a span; what is a holiday is not known."""
    day, last = since.astimezone(zone).date(), until.astimezone(zone).date()
    total = timedelta()
    while day <= last:
        if day.weekday() < _WORKING_DAYS:
            opens, closes = (datetime.combine(day, at, zone) for at in (_OPENS, _CLOSES))
            total += max(timedelta(), min(until, closes) - max(since, opens))
        day += timedelta(days=1)
    return total.total_seconds() / 3600
