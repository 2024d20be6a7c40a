"""What a relay's answer, or its silence, means: a table from (phase, reply) to our failures (channels.md 1.5)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from service.delivery import (
    AccountFailure,
    DeliveryFailure,
    MessageTooLarge,
    PermanentFailure,
    RecipientRefused,
    SendingBlocked,
    TransientFailure,
    UnconfirmedFailure,
)
from service.privacy import scrub

_ENHANCED = re.compile(r"\s*[#\[(]?([245])(\.\d{1,3}\.\d{1,3})\b")
_TIMED = r"(\d{1,6})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?)"
_ABOUT = r"\s+(?:about\s+|at\s+least\s+)?"
# Beside a word that asks us to wait: other numbers are limits ("100 messages in 1 hour"), or a time of day ("after
# 14:05:00").
_WAIT = re.compile(
    r"\b(?:(?:re)?try|again|back|wait|gr[ae]y.?list(?:ed|ing)?)\b"
    rf"(?:(?:[^\d.;]{{0,30}}?\b(?:in|for|after))?{_ABOUT}{_TIMED}"
    rf"|[^\d.;]{{0,30}}?\b(?:in|for){_ABOUT}(\d\d):(\d\d):(\d\d))\b",
    re.IGNORECASE,
)
_UNITS = {"s": 1, "m": 60, "h": 3600}
_LONGEST_WAIT = 86400.0


class Phase(StrEnum):
    """How far a connection or a mail was. The words are part of the reason a person reads."""

    CONNECT = "the mail relay cannot be reached"
    FURTHER = "the mail relay takes no further connection"  # while others of ours work
    AUTH = "the mail relay did not let us sign in"
    MAIL = "the mail relay refused the sender"
    RCPT = "the mail relay refused the recipient"
    DATA = "the mail relay refused to take the message"
    CONTENT = "the mail relay refused the message"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row: it fits when all of `reply` ("550 5.1.1", or "550" where there is no enhanced code) and its words do."""

    failure: type[TransientFailure] | type[PermanentFailure]
    reply: str
    phases: frozenset[Phase] = frozenset(Phase)
    words: re.Pattern[str] | None = None


_OPENING = frozenset({Phase.CONNECT, Phase.AUTH})
_AUTH, _MAIL, _RCPT = (frozenset({phase}) for phase in (Phase.AUTH, Phase.MAIL, Phase.RCPT))
_BETWEEN = frozenset({Phase.RCPT, Phase.DATA})
_SIZED = frozenset({Phase.MAIL, Phase.DATA, Phase.CONTENT})
_GREYLISTED = re.compile(r"gr[ae]y.?list", re.IGNORECASE)
_BAD_NAME = re.compile(
    r"\b(block(ed|s)? (using|by|due|list)|(black|block|deny).?list|listed (at|in|by)|[dr]?n?s?bl\b|spam|banned|abuse|"
    r"unsolicited|reputation)",
    re.IGNORECASE,
)
_NO_RELAY = r"relay(ing)? ((access|is) )?(denied|not|prohibited|forbidden|disallowed)|(unable to|can ?not|not) relay"
_POLICY = re.compile(
    rf"{_BAD_NAME.pattern}|\b(policy|blocked|dmarc|dkim|spf|not (permitted|allowed|authori[sz]ed)|{_NO_RELAY})",
    re.IGNORECASE,
)
_NOBODY = re.compile(  # of that name; a relay that checks the sender's address finds nobody there in the same words
    r"^(?!.*\bsender).*\b((user|recipient|mailbox|address|account) (is )?(unknown|not found|does ?n.t exist|"
    r"does not exist)|(unknown|no such|invalid|non-?existent) (local )?(user|recipient|mailbox|address|account))\b",
    re.IGNORECASE | re.DOTALL,
)
_BAD_SYNTAX = re.compile(r"\b(bad|invalid|malformed|illegal)\b.*\b(address|recipient|mailbox)\b", re.IGNORECASE)

RULES: tuple[Rule, ...] = (
    # Our account. RFC 4954: sign in first, or otherwise. 5.7.30: signing in with a password is switched off.
    Rule(AccountFailure, r"53[0458]( .*)?"),
    Rule(AccountFailure, r"5.. 5\.7\.(8|9|11|30)"),
    # Our sender's address: bad, not ours to use (5.7.60, 5.2.252 and Postfix's 553 5.7.1, which it gives at RCPT).
    Rule(AccountFailure, r"5.. 5\.(1\.7|1\.8|7\.60|2\.252)|553 5\.7\.1"),
    Rule(AccountFailure, r"5.. 5\.(1\.90|4\.5)"),  # what we may send in a day is used up (Microsoft, Google)
    Rule(AccountFailure, r".*", _AUTH),
    # What we send. RFC 7372, Google and Microsoft: the mail's authentication, our address's name and its standing;
    # these are never greylisting, so they mean the same with a 4.
    Rule(SendingBlocked, r"[45].. [45]\.7\.([2-4]\d|[5-7]\d\d)"),
    Rule(SendingBlocked, r"5..( 5\.7\..*)?", words=_BAD_NAME),
    Rule(RecipientRefused, r"5.*", _RCPT, _NOBODY),  # whatever code it comes with
    Rule(SendingBlocked, r"5.. 5\.7\..*|554"),
    Rule(SendingBlocked, r"5..", words=_POLICY),
    # For now. A 4.7.0 or 4.7.1 is greylisting or throttling, unless its words are about our standing.
    Rule(TransientFailure, r"4.*", words=_GREYLISTED),
    Rule(SendingBlocked, r"4..( 4\.7\..*)?", words=_BAD_NAME),
    Rule(AccountFailure, r".*", frozenset({Phase.CONNECT})),
    Rule(AccountFailure, r"454( 4\.7\..*)?", _MAIL),  # RFC 4954, RFC 3207: signing in or TLS does not work just now
    Rule(TransientFailure, r"4.*"),
    # This mail. Before the recipient is named, only its size is the mail's own: the next would be refused as well.
    Rule(MessageTooLarge, r"5.. 5\.(3\.4|2\.3)"),
    Rule(MessageTooLarge, r"552", _SIZED),  # at RCPT it is the mailbox that is full
    Rule(AccountFailure, r"5.*", _MAIL),
    Rule(RecipientRefused, r"5.. 5\.1\.(1|2|3|6|10)"),
    Rule(RecipientRefused, r"5.. 5\.(1\.\d+|4\.[14])|550 5\.5\.0|55[013]", _RCPT),  # 5.4.1, 5.5.0: Microsoft's
    Rule(RecipientRefused, r"501", _RCPT, _BAD_SYNTAX),
    # We do not understand each other; a new connection begins anew.
    Rule(TransientFailure, r"50[0-4]( 5\.5\..*)?", _BETWEEN),
    Rule(PermanentFailure, r"5.*"),  # a full or closed mailbox (5.2.x) too: another day it may take a mail
)


def classify(phase: Phase, code: int | None, text: str, secrets: Iterable[str] = ()) -> DeliveryFailure:
    """Return the failure for a reply `code text` in `phase`; a code outside 400-599 (or None) is no answer.

    No answer to the content is unconfirmed; to anything before it, nothing was accepted.
    """
    said = clean(text, secrets)
    if code is None or not 400 <= code <= 599:  # noqa: PLR2004
        return _unanswered(phase, said)
    failure, reason = _judge(phase, code, said), f"{phase}: {code} {said}".rstrip()
    if issubclass(failure, TransientFailure):
        return failure(reason, retry_after=parse_wait(text))
    return failure(reason)


def _judge(phase: Phase, code: int, text: str) -> type[TransientFailure] | type[PermanentFailure]:
    """Return what the first rule that fits says; an enhanced code that says nothing (5.0.0) is left out."""
    found = _ENHANCED.match(text)
    detail = found[1] + found[2] if found and found[1] == str(code)[0] and found[2] != ".0.0" else ""
    reply = f"{code} {detail}".rstrip()
    return next(
        rule.failure
        for rule in RULES
        if phase in rule.phases and re.fullmatch(rule.reply, reply) and (not rule.words or rule.words.search(text))
    )


def _unanswered(phase: Phase, said: str) -> DeliveryFailure:
    if phase is Phase.CONTENT:
        return UnconfirmedFailure(f"the mail relay's answer to the message was lost: {said}")
    if phase in _OPENING or phase is Phase.FURTHER:
        return AccountFailure(f"{phase}: {said}")
    return TransientFailure(f"the connection to the mail relay broke: {said}")


def parse_wait(text: str) -> float | None:
    """Return the seconds a relay asks us to wait ("try again in 5 minutes"), at most a day; None when it names none."""
    found = _WAIT.search(text)
    if found is None:
        return None
    count, unit, *clock = found.groups()
    seconds = (
        float(count) * _UNITS[unit[0].lower()]
        if count
        else sum(int(n) * s for n, s in zip(clock, (3600, 60, 1), strict=True))
    )
    return min(float(seconds), _LONGEST_WAIT)


def clean(text: str, secrets: Iterable[str]) -> str:
    """Return a relay's words without addresses and secrets; a secret is hidden as a whole word, not inside others."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text, flags=re.IGNORECASE)
    return scrub(text)
