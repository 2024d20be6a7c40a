"""routes.toml: what it may say, every mistake named, which rule fits, and what is warned of."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.delivery import Party, Transaction
from service.routing import Routes, RoutesError, read_routes
from tests.commands import run
from tests.fakes import ACCOUNT, a_transaction

KNOWN = ("email", "sms-twilio", "http")
TODAY = date(2026, 11, 24)
RULES = """
[[rule]]
name = "large ones to the ERP"
min_amount = 1000000
currency = "NOK"
channels = ["http"]
exclusive = true
courtesy = ["email", "http"]

[[rule]]
name = "Danish consumers by SMS first"
product = "b2c"
country = ["dk"]
channels = ["sms-twilio", "email"]

[[rule]]
name = "who has no mail"
lacks = "email"
has = "phone"
channels = "sms-twilio"

[[rule]]
name = "from 2027 on"
product = ["b2b", "grouped"]
language = "nb"
from = 2027-01-01
until = 2027-06-30
channels = ["http", "email"]
"""


def routes(text: str = RULES) -> Routes:
    return read_routes(text, default=("email",), known=KNOWN)


def asked(**changes: Any) -> Transaction:
    billing = replace(a_transaction().billing or Party(), **changes.pop("billing", {}))
    return a_transaction(f"{ACCOUNT}.a", billing=billing, **changes)


B2C = "kravia.invoice_b2c"
PHONE = {"email": None, "phone_number": "+4740000000"}


@pytest.mark.parametrize(
    ("transaction", "language", "today", "rule", "channels"),
    [
        (asked(), "nb", TODAY, "CHANNELS", ("email",)),
        (asked(amount=1000000), "nb", TODAY, "routes.toml: large ones to the ERP", ("http",)),
        (asked(amount=999999), "nb", TODAY, "CHANNELS", ("email",)),
        (asked(amount=None), "nb", TODAY, "CHANNELS", ("email",)),
        (asked(amount=1000000, currency="SEK"), "nb", TODAY, "CHANNELS", ("email",)),
        (
            asked(product_type=B2C, billing={"country": "DK"}),
            "da",
            TODAY,
            "routes.toml: Danish consumers by SMS first",
            ("sms-twilio", "email"),
        ),
        (asked(billing={"country": "DK"}), "da", TODAY, "CHANNELS", ("email",)),
        (asked(billing=PHONE), "nb", TODAY, "routes.toml: who has no mail", ("sms-twilio",)),
        (asked(), "nb", date(2027, 1, 1), "routes.toml: from 2027 on", ("http", "email")),
        (asked(), "nb", date(2027, 6, 30), "routes.toml: from 2027 on", ("http", "email")),
        (asked(), "nb", date(2027, 7, 1), "CHANNELS", ("email",)),
        (asked(), "en", date(2027, 1, 1), "CHANNELS", ("email",)),
        (asked(invoice_date=date(2026, 12, 31)), "nb", date(2027, 1, 1), "CHANNELS", ("email",)),
    ],
)
def test_the_first_rule_that_fits_decides(
    transaction: Transaction, language: str, today: date, rule: str, channels: tuple[str, ...]
) -> None:
    route = routes().choose(transaction, language=language, today=today)
    assert (route.rule, route.channels) == (rule, channels)


def test_what_is_exclusive_and_what_is_a_courtesy() -> None:
    route = routes().choose(asked(amount=1000000), language="nb", today=TODAY)
    assert (route.exclusive, route.courtesy) == (True, ("email",))
    text = '[[rule]]\nchannels = ["http", "email"]\nexclusive = true'
    assert routes(text).choose(asked(), language="nb", today=TODAY).channels == ("http",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rule", "Expected"),
        ("[rule]\nchannels = 'email'", "rules are written as [[rule]]"),
        ("[[rules]]\nchannels = 'email'", "there is no rules in routes.toml"),
        ("[[rule]]", "rule 1: channels must name at least one of email, sms-twilio, http"),
        ("[[rule]]\nname = 'x'\nchannels = 'fax'", "rule 1 (x): channels has fax, which is none of"),
        ("[[rule]]\nchannels = 'email'\ncolour = 'red'", "rule 1: there is no colour"),
        ("[[rule]]\nchannels = 'email'\nproduct = 'b2x'", "product has b2x, which is none of b2b, b2c, grouped"),
        ("[[rule]]\nchannels = 'email'\nmin_amount = 10.5", "min_amount must be a whole number of minor units"),
        ("[[rule]]\nchannels = 'email'\nmin_amount = true", "min_amount must be a whole number of minor units"),
        ("[[rule]]\nchannels = 'email'\nfrom = '2027-01-01'", "from must be a day such as 2027-01-01, without quotes"),
        ("[[rule]]\nchannels = 'email'\nfrom = 2027-01-02\nuntil = 2027-01-01", "from is later than until"),
        ("[[rule]]\nchannels = 'email'\nexclusive = 1", "exclusive must be true or false"),
        ("[[rule]]\nchannels = [1]", "channels must be a word or a list of words"),
        ("[[rule]]\nchannels = 'email'\nhas = 'fax'", "has has fax"),
        ("[[rule]]\nchannels = 'email'\ncountry = ['NO', 'Norge']", "country has Norge; 2 letters, such as NO"),
        ("[[rule]]\nchannels = 'email'\ncurrency = 'kr'", "currency has kr; 3 letters, such as NOK"),
        ("[[rule]]\nchannels = 'email'\nlanguage = 'norsk'", "language has norsk; 2 letters, such as nb"),
        ("[[rule]]\nchannels = 'email'\nmin_amount = 2\nmax_amount = 1", "min_amount is more than max_amount"),
        ("[[rule]]\nchannels = 'email'\nhas = 'phone'\nlacks = 'phone'", "has and lacks both name phone"),
    ],
)
def test_every_mistake_is_named_with_its_place(text: str, said: str) -> None:
    with pytest.raises(RoutesError) as caught:
        routes(text)
    assert said in str(caught.value)


def test_all_mistakes_come_together() -> None:
    with pytest.raises(RoutesError) as caught:
        routes("[[rule]]\nchannels = 'fax'\nmin_amount = -1\n[[rule]]\nchannels = 'email'\nexclusive = 'yes'")
    assert len(caught.value.problems) == 3


@given(st.text(max_size=200))
def test_rubbish_is_refused_kindly(text: str) -> None:
    with suppress(RoutesError):
        assert routes(text).rules == ()  # a comment, or nothing


@pytest.mark.parametrize(
    ("transaction", "today", "words"),
    [
        (asked(), TODAY, []),
        (asked(), date(2027, 1, 1), ["e-invoices"]),
        (asked(product_type=B2C), date(2027, 1, 1), []),
        (asked(billing={"country": "SE"}), date(2027, 1, 1), []),
        (asked(billing={"business_name": "Bergen kommune"}), TODAY, ["public body"]),
        (asked(billing={"business_name": "Malmö kommun", "country": "SE"}), TODAY, ["public body"]),
        (asked(billing={"business_name": "Kommunikasjon AS"}), TODAY, []),
        (asked(billing={"business_name": "Justisdepartementet"}), TODAY, ["public body"]),
        (asked(billing={"business_name": "Skolverket", "country": "SE"}), TODAY, ["public body"]),
        (asked(billing={"business_name": "Verktøy AS"}), TODAY, []),
        (asked(billing={"business_name": "Bergen kommune"}), date(2027, 2, 1), ["e-invoices", "public body"]),
    ],
)
def test_where_a_mailed_pdf_will_not_do_it_warns(transaction: Transaction, today: date, words: list[str]) -> None:
    warnings = routes("").choose(transaction, language="nb", today=today).warnings
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))
    to_erp = read_routes("", default=("http",), known=KNOWN).choose(transaction, language="nb", today=today)
    assert to_erp.warnings == ()
    to_fall_back = read_routes("", default=("http", "email"), known=KNOWN)
    assert to_fall_back.choose(transaction, language="nb", today=today).warnings == warnings


def test_norwegian_is_written_in_two_ways() -> None:
    chosen = routes('[[rule]]\nlanguage = "no"\nchannels = "http"')
    found = [chosen.choose(asked(), language=tag, today=TODAY).channels for tag in ("nb", "nn", "da")]
    assert found == [("http",), ("http",), ("email",)]


# --- `routes explain` ------------------------------------------------------------------------------------------------

SESSION = {
    "id": "T1.a",
    "status": "AUTHORIZED",
    "payment_product_type": B2C,
    "amount": 50000,
    "currency": "DKK",
    "billing_address": {"country": "DK", "email": "ib@dansk.example"},
}


@pytest.fixture
def asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "routes.toml").write_text(RULES)
    file = tmp_path / "transaction.json"
    file.write_text(json.dumps(SESSION))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DELIVERY_CHANNELS", ",".join(KNOWN))
    monkeypatch.setenv("DELIVERY_ROUTES_FILE", "routes.toml")
    return file


def test_it_says_which_rule_decided(asking: Path) -> None:
    done = run("routes", "explain", str(asking))
    assert done.exit_code == 0, done.output
    assert "decided by routes.toml: Danish consumers by SMS first" in done.output
    assert "1. sms-twilio\n2. email" in done.output


def test_on_another_day_and_as_json(asking: Path) -> None:
    billing = {"country": "NO", "business_name": "Bergen kommune", "email": "faktura@bergen.example"}
    business = SESSION | {"payment_product_type": "kravia.invoice_b2b", "currency": "NOK", "billing_address": billing}
    asking.write_text(json.dumps(business))
    now = json.loads(run("routes", "explain", str(asking), "--on", "2026-11-24", "--json").output)
    then = json.loads(run("routes", "explain", str(asking), "--on", "2027-01-01", "--json").output)
    assert (now[0]["channels"], then[0]["channels"]) == (list(KNOWN), ["http", "email"])
    assert (len(now[0]["warnings"]), then[0]["rule"]) == (1, "routes.toml: from 2027 on")


ORDER = {
    "amount": 150000000,
    "currency": "NOK",
    "billing_address": {"country": "NO", "email": "kari@fjordbygg.example", "phone_number": "+4740000001"},
}
PAID = {"payment_product_type": "kravia.invoice_b2b"}


@pytest.mark.parametrize(
    "document",
    [
        {"payment": PAID, "session": {"order": ORDER}},
        {"payment": PAID, "order": ORDER},
        {
            "payment": PAID | {"billing_address": ORDER["billing_address"]},
            "session": {"order": {k: v for k, v in ORDER.items() if k != "billing_address"}},
        },
    ],
    ids=["an invoice", "a session", "two steps"],
)
def test_a_request_is_routed_as_what_becomes_of_it(asking: Path, document: dict[str, object]) -> None:
    """Its order, where the amount and the address are, is told beside no transaction."""
    rule = 'channels = ["http"]\nhas = "email"\ncountry = "NO"\ncurrency = "NOK"\nmin_amount = 150000000\n'
    (asking.parent / "routes.toml").write_text(f'[[rule]]\nname = "large"\n{rule}')
    asking.write_text(json.dumps(document))
    (said,) = json.loads(run("routes", "explain", str(asking), "--json").output)
    assert (said["rule"], said["channels"]) == ("routes.toml: large", ["http"])


def test_a_wrong_file_is_named(asking: Path) -> None:
    (asking.parent / "routes.toml").write_text("[[rule]]\nchannels = 'fax'")
    done = run("routes", "explain", str(asking))
    assert done.exit_code == 2
    assert "DELIVERY_ROUTES_FILE: rule 1: channels has fax" in done.output
