"""By which channels an invoice goes: the rules of routes.toml, read once, and a pure choice among them."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from service.delivery import Party, Route, Transaction

_TESTS = {"product", "country", "currency", "min_amount", "max_amount", "language", "has", "lacks", "from", "until"}
MEMBERS = frozenset(_TESTS | {"name", "channels", "exclusive", "courtesy"})
PRODUCTS = {
    "b2b": "kravia.invoice_b2b",
    "b2c": "kravia.invoice_b2c",
    "grouped": "kravia.invoice_b2b_grouped",
}
ADDRESSES = frozenset({"email", "phone"})
E_INVOICES_IN_NORWAY_FROM = date(2027, 1, 1)
"""From then on a Norwegian business invoices another by e-invoice (channels.md 0.1)."""
_PDF = "a mailed PDF"
_PUBLIC = re.compile(
    r"\b(?:kommune|fylkeskommune|kommun|landsting|region|kunta|kaupunki|hyvinvointialue|virasto|statens?"
    # What these end is one word with what it is for: Justisdepartementet, Skolverket, Energistyrelsen.
    r"|\w*(?:departementet|direktoratet|ministeriet|ministeriö|styrelsen|myndigheten|verket|tilsynet|etaten))\b",
    re.IGNORECASE,
)
_NORDIC = frozenset({"NO", "SE", "FI", "DK"})


class RoutesError(ValueError):
    """What is wrong with routes.toml, every mistake with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: whatever it names must fit; what it does not name fits everything. Amounts in minor units."""

    name: str
    channels: tuple[str, ...]
    exclusive: bool = False
    courtesy: tuple[str, ...] = ()
    products: frozenset[str] = frozenset()
    countries: frozenset[str] = frozenset()
    currencies: frozenset[str] = frozenset()
    languages: frozenset[str] = frozenset()
    has: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    min_amount: int | None = None
    max_amount: int | None = None
    since: date | None = None
    until: date | None = None  # the last day


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The rules in order, the first that fits decides; else the channels of CHANNELS."""

    default: tuple[str, ...]
    rules: tuple[Rule, ...] = ()

    def choose(self, transaction: Transaction, *, language: str, today: date) -> Route:
        """Return the route of an invoice; `today` counts where it has no date of its own."""
        rule = next((rule for rule in self.rules if _fits(rule, transaction, language, today)), None)
        channels, courtesy = (rule.channels, rule.courtesy) if rule else (self.default, ())
        exclusive = rule is not None and rule.exclusive
        route = Route(
            channels=channels[:1] if exclusive else channels,
            rule=f"routes.toml: {rule.name}" if rule else "CHANNELS",
            exclusive=exclusive,
            courtesy=tuple(name for name in courtesy if name not in channels[:1]),
        )
        return Route(
            channels=route.channels,
            rule=route.rule,
            exclusive=exclusive,
            courtesy=route.courtesy,
            warnings=_warnings(route, transaction, today),
        )


def _fits(rule: Rule, transaction: Transaction, language: str, today: date) -> bool:
    day, there = transaction.invoice_date or today, _addresses(transaction)
    amount = transaction.amount
    return (
        _among(transaction.product_type, rule.products)
        and _among(country_of(transaction), rule.countries)
        and _among(transaction.currency, rule.currencies)
        and _among(language, rule.languages)
        and rule.has <= there
        and not rule.lacks & there
        and (rule.min_amount is None or (amount is not None and amount >= rule.min_amount))
        and (rule.max_amount is None or (amount is not None and amount <= rule.max_amount))
        and (rule.since is None or day >= rule.since)
        and (rule.until is None or day <= rule.until)
    )


def _among(value: str | None, wanted: frozenset[str]) -> bool:
    return not wanted or value in wanted


def country_of(transaction: Transaction) -> str | None:
    """Return the billing country, else the customer's."""
    return next((party.country for party in _parties(transaction) if party.country), None)


def _addresses(transaction: Transaction) -> frozenset[str]:
    found = {"email" for party in _parties(transaction) if party.email}
    return frozenset(found | {"phone" for party in _parties(transaction) if party.phone_number})


def _parties(transaction: Transaction) -> tuple[Party, ...]:
    return tuple(party for party in (transaction.billing, transaction.customer) if party is not None)


def _warnings(route: Route, transaction: Transaction, today: date) -> tuple[str, ...]:
    """Say where a mailed PDF will not do, though the route has one, or a link to it: of its own accord or to fall back.

    What an adapter of somebody's own delivers nobody here knows.
    """
    mails = any(name == "email" or name.startswith("sms-") for name in route.channels)
    if not mails or transaction.product_type == PRODUCTS["b2c"]:
        return ()
    found, country = [], country_of(transaction)
    if country == "NO" and (transaction.invoice_date or today) >= E_INVOICES_IN_NORWAY_FROM:
        found.append(f"{_PDF} is no invoice in law between Norwegian businesses from 2027-01-01, which send e-invoices")
    name = (transaction.billing.business_name if transaction.billing else None) or ""
    if country in _NORDIC and _PUBLIC.search(name):
        found.append(f"{_PDF} will not do for a public body, which takes e-invoices only; the name looks like one")
    return tuple(found)


def read_routes(text: str, *, default: Sequence[str], known: Sequence[str]) -> Routes:
    """Return the routes of a routes.toml; raises `RoutesError`. `known` are the channels that CHANNELS names."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise RoutesError((str(exc),)) from exc
    problems = [f"there is no {name} in routes.toml; rules are [[rule]]" for name in document if name != "rule"]
    listed = document.get("rule", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise RoutesError((*problems, "rules are written as [[rule]]"))
    rules = [_rule(one, number, known, problems) for number, one in enumerate(listed, 1)]
    if problems:
        raise RoutesError(problems)
    return Routes(default=tuple(default), rules=tuple(rules))


def _rule(members: Mapping[str, object], number: int, known: Sequence[str], problems: list[str]) -> Rule:
    name = members.get("name") if isinstance(members.get("name"), str) else None
    where = f"rule {number}" + (f" ({name})" if name else "")
    read = _Reader(members=members, where=where, problems=problems)
    problems += [f"{where}: there is no {member}" for member in members if member not in MEMBERS]
    channels = read.words("channels", set(known))
    if not channels:
        problems.append(f"{where}: channels must name at least one of {', '.join(known)}")
    since, until = read.day("from"), read.day("until")
    least, most = read.amount("min_amount"), read.amount("max_amount")
    has, lacks = frozenset(read.words("has", ADDRESSES)), frozenset(read.words("lacks", ADDRESSES))
    if since and until and since > until:
        problems.append(f"{where}: from is later than until")
    if least is not None and most is not None and least > most:
        problems.append(f"{where}: min_amount is more than max_amount")
    if has & lacks:
        problems.append(f"{where}: has and lacks both name {', '.join(sorted(has & lacks))}")
    return Rule(
        name=str(name or f"rule {number}"),
        channels=channels,
        exclusive=read.flag("exclusive"),
        courtesy=read.words("courtesy", set(known)),
        products=frozenset(PRODUCTS[word] for word in read.words("product", set(PRODUCTS)) if word in PRODUCTS),
        countries=frozenset(word.upper() for word in read.letters("country", 2, "NO")),
        currencies=frozenset(word.upper() for word in read.letters("currency", 3, "NOK")),
        languages=_languages(word.lower() for word in read.letters("language", 2, "nb")),
        has=has,
        lacks=lacks,
        min_amount=least,
        max_amount=most,
        since=since,
        until=until,
    )


def _languages(words: Iterable[str]) -> frozenset[str]:
    """Return the tags that messages are written in: Norwegian is either of two."""
    return frozenset(tag for word in words for tag in (("nb", "nn") if word == "no" else (word,)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Takes the members of one rule, and notes what is wrong with them."""

    members: Mapping[str, object]
    where: str
    problems: list[str]

    def words(self, name: str, allowed: set[str] | frozenset[str] | None = None) -> tuple[str, ...]:
        value = self.members.get(name, [])
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(word, str) and word for word in listed):
            self.problems.append(f"{self.where}: {name} must be a word or a list of words")
            return ()
        strange = [word for word in listed if allowed is not None and word not in allowed]
        if strange and allowed is not None:
            one_of = ", ".join(sorted(allowed))
            self.problems.append(f"{self.where}: {name} has {', '.join(strange)}, which is none of {one_of}")
        return tuple(dict.fromkeys(listed))

    def letters(self, name: str, length: int, example: str) -> tuple[str, ...]:
        """Return words that are codes; one of another shape would never fit, and nobody would learn of it."""
        words = self.words(name)
        if strange := [word for word in words if not re.fullmatch(rf"[A-Za-z]{{{length}}}", word)]:
            self.problems.append(f"{self.where}: {name} has {', '.join(strange)}; {length} letters, such as {example}")
        return words

    def amount(self, name: str) -> int | None:
        value = self.members.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        self.problems.append(f"{self.where}: {name} must be a whole number of minor units")
        return None

    def day(self, name: str) -> date | None:
        value = self.members.get(name)
        if value is None or type(value) is date:
            return value
        self.problems.append(f"{self.where}: {name} must be a day such as 2027-01-01, without quotes")
        return None

    def flag(self, name: str) -> bool:
        value = self.members.get(name, False)
        if isinstance(value, bool):
            return value
        self.problems.append(f"{self.where}: {name} must be true or false")
        return False
