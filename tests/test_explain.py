"""`explain`: every level with its value, the one that won, and that it agrees with what is decided."""

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from service.delivery import (
    BUILT_IN,
    ChannelDefault,
    DecidedBy,
    Interval,
    Level,
    Outcome,
    Terms,
    Transaction,
)
from service.dintero.asking import explain_document
from service.dintero.transaction import parse_transaction
from service.explaining import Way, decided, destination
from service.ordering import Creation, checkout_session, merchant_invoice
from tests.commands import enter, run
from tests.scripted_provider import ACCOUNT, ID, TOKEN_PATH, Script, Scripted, scripted
from tests.servers import json_reply, serve
from tests.test_settings import env

PROFILES = "/checkout/v1/admin/session/profiles"
CHECKOUT = "/checkout/v1/admin/checkout"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
SINGLE, GROUPED = "kravia.invoice_b2b", "kravia.invoice_b2b_grouped"
LEVELS = [*(level.value for level in DecidedBy), BUILT_IN]
Json = dict[str, Any]


def own(product_type: str, **options: object) -> Json:
    return {"configuration": {"kravia": {product_type.partition(".")[2]: options}}}


def a_transaction(product_type: str = SINGLE, **more: object) -> Transaction:
    document = {"id": "T1.a", "status": "AUTHORIZED", "payment_product_type": product_type, **more}
    return parse_transaction(document, read_at=NOW)


def said(levels: tuple[Level, ...]) -> dict[str, str | None]:
    return {level.name: level.value for level in levels}


@pytest.fixture
async def provider() -> AsyncIterator[Scripted]:
    async with scripted(invoice_channel=ChannelDefault()) as opened:
        yield opened


@pytest.mark.parametrize("speaks", list(product([True, False], repeat=4)))
async def test_all_levels_are_shown_and_the_first_that_speaks_is_the_decision(speaks: tuple[bool, ...]) -> None:
    """The levels say who they are, so that no two agree by chance."""
    transaction, session, profile, checkout = speaks
    asked = a_transaction(
        metadata={"session:profile_id": "P1", **({"kravia:invoice_channel": "transaction"} if transaction else {})},
        session=own(SINGLE, invoice_channel="session") if session else {},
    )
    async with scripted(invoice_channel=ChannelDefault(default="setting")) as provider:
        in_profile = own(SINGLE, invoice_channel="profile") if profile else {}
        provider.script.on(PROFILES, json_reply([{"id": "P1", **in_profile}]))
        provider.script.on(CHECKOUT, json_reply(own(SINGLE, invoice_channel="checkout") if checkout else {}))
        explained = await provider.dintero.explain(asked)
        resolution = await provider.dintero.resolve(asked)
    expected = {name: name if speaks else None for name, speaks in zip(LEVELS, (*speaks, True), strict=False)}
    assert list(said(explained.channel)) == LEVELS
    assert said(explained.channel) == {**expected, BUILT_IN: "kravia"}
    assert [level.won for level in explained.channel].count(True) == 1
    won = decided(explained.channel)
    assert (won.value, won.name) == (resolution.channel, resolution.decided_by)
    assert won.name == next(name for name, speaks in zip(LEVELS, (*speaks, True), strict=False) if speaks)


async def test_without_a_setting_the_default_wins_and_is_recorded_as_the_settings(provider: Scripted) -> None:
    explained = await provider.dintero.explain(a_transaction())
    assert decided(explained.channel).name == BUILT_IN
    assert (await provider.dintero.resolve(a_transaction())).decided_by is DecidedBy.SETTING


async def test_where_says_which_member_of_the_document_it_was(provider: Scripted) -> None:
    provider.script.on(
        CHECKOUT,
        json_reply(
            {"configuration": {"payment_options": [{"type": SINGLE, "details": {"invoice_channel": "merchant"}}]}}
        ),
    )
    asked = a_transaction(payment={"invoice_channel": "kravia"})
    where = {level.name: level.where for level in (await provider.dintero.explain(asked)).channel}
    assert where["session"] == "payment"
    assert where["profile"] == "none is named"
    assert where["checkout"] == "configuration.payment_options"


async def test_what_cannot_be_read_behind_the_decision_is_shown_and_no_trouble(provider: Scripted) -> None:
    provider.script.on(CHECKOUT, json_reply({}, 503))
    explained = await provider.dintero.explain(a_transaction(metadata={"kravia:invoice_channel": "merchant"}))
    checkout = next(level for level in explained.channel if level.name == "checkout")
    assert checkout.unread
    assert "could not be read" in checkout.where
    assert destination(explained, a_transaction(), ("email",)).words.count("unless") == 0


@pytest.mark.parametrize("level", ["session", "payment", "profile", "checkout", "setting"])
async def test_the_terms_of_a_grouped_purchase_come_from_the_first_level_that_has_them(level: str) -> None:
    """Each for itself: the interval from that level, the days from the checkout unless a level above has them."""
    options = own(GROUPED, invoice_schedule={"interval": "quarterly"})
    asked = a_transaction(
        GROUPED,
        metadata={"session:profile_id": "P1"},
        session=options if level == "session" else {},
        payment={"invoice_schedule": {"interval": "quarterly"}} if level == "payment" else {},
    )
    setting = Terms(interval=Interval.QUARTERLY if level == "setting" else Interval.MONTHLY, days_until_due=21)
    async with scripted(group_terms=setting) as provider:
        provider.script.on(PROFILES, json_reply([{"id": "P1", **(options if level == "profile" else {})}]))
        schedule = {"invoice_schedule": {"interval": "quarterly"}} if level == "checkout" else {}
        provider.script.on(CHECKOUT, json_reply(own(GROUPED, days_until_due=30, **schedule)))
        resolution = await provider.dintero.resolve(asked)
        explained = await provider.dintero.explain(asked)
    decided_by = DecidedBy("session" if level == "payment" else level)
    assert resolution.terms == Terms(
        interval=Interval.QUARTERLY, interval_from=decided_by, days_until_due=30, days_from=DecidedBy.CHECKOUT
    )
    assert list(said(explained.interval)) == ["session", "profile", "checkout", "setting"]
    assert decided(explained.interval).name == decided_by
    assert said(explained.days_until_due) == {"session": None, "profile": None, "checkout": "30", "setting": "21"}


@pytest.mark.parametrize(("interval", "days"), [("weekly", 366), (3, -1), (None, "14"), ("", True), ([], 1.5)])
async def test_terms_that_make_no_sense_say_nothing(provider: Scripted, interval: object, days: object) -> None:
    session = own(GROUPED, invoice_schedule={"interval": interval}, days_until_due=days)
    found = await provider.dintero.resolve(a_transaction(GROUPED, session=session))
    assert found.terms == Terms()


async def test_zero_days_are_an_answer(provider: Scripted) -> None:
    found = await provider.dintero.resolve(a_transaction(GROUPED, session=own(GROUPED, days_until_due=0)))
    assert found.terms == Terms(days_until_due=0, days_from=DecidedBy.SESSION)


async def test_only_grouped_products_have_terms(provider: Scripted) -> None:
    asked = a_transaction(session=own(SINGLE, days_until_due=3))
    assert (await provider.dintero.resolve(asked)).terms is None
    assert (await provider.dintero.explain(asked)).interval == ()


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([("AUTHORIZE", "2026-01-31T23:30:00Z", True)], datetime(2026, 1, 31, 23, 30, tzinfo=UTC)),
        (
            [("AUTHORIZE", "2026-01-31T20:00:00Z", False), ("AUTHORIZE", "2026-02-01T01:00:00Z", True)],
            datetime(2026, 2, 1, 1, tzinfo=UTC),
        ),
        ([("AUTHORIZE", None, True)], datetime(2026, 1, 30, tzinfo=UTC)),
        ([("CAPTURE", "2026-02-03T00:00:00Z", True)], datetime(2026, 1, 30, tzinfo=UTC)),
        ([], datetime(2026, 1, 30, tzinfo=UTC)),
    ],
)
def test_a_purchase_is_of_when_it_was_authorized(
    events: list[tuple[str, str | None, bool]], expected: datetime
) -> None:
    listed = [{"event": name, "created_at": at, "success": ok} for name, at, ok in events]
    assert a_transaction(created_at="2026-01-30T00:00:00Z", events=listed).purchased_at == expected


@pytest.mark.parametrize("reference", [{}, {"customer_reference": None}, {"customer_reference": "  "}])
def test_references_that_say_nothing_are_one(reference: Json) -> None:
    billing = a_transaction(billing_address={"business_name": "Nordmann AS", "country": "no", **reference}).billing
    assert billing is not None
    assert (billing.customer_reference, billing.country) == (None, "NO")


# --- files and the command -------------------------------------------------------------------------------------------


async def of(document: object, default: ChannelDefault | None = None) -> list[tuple[str, str, Way, str]]:
    asked = await explain_document(
        document, read_at=NOW, default=default or ChannelDefault(), group_terms=Terms(days_until_due=9)
    )
    found = [(said, destination(said, transaction, ("email",))) for transaction, said in asked]
    return [(said.product_type, decided(said.channel).name, to.way, to.words) for said, to in found]


async def test_a_session_is_explained_for_each_product_that_it_offers() -> None:
    session = own(SINGLE, invoice_channel="merchant")
    session["configuration"]["kravia"] |= {
        "type": "payment_type",
        "invoice_b2c": {"enabled": False},
        "invoice_b2b_grouped": {"enabled": True},
    }
    found = await of({"order": {}, **session})
    assert [(name, level, way) for name, level, way, _ in found] == [
        (SINGLE, "session", Way.OURS),
        (GROUPED, BUILT_IN, Way.KRAVIA),
    ]
    assert "by email" in found[0][3]
    assert "unless" not in found[0][3]
    assert "unless the checkout" in found[1][3]


async def test_a_session_that_configures_nothing_may_be_paid_by_any_product() -> None:
    found = await of({"order": {}, "profile_id": "P1"}, ChannelDefault(default="merchant"))
    assert [(name, level) for name, level, _, _ in found] == [
        (SINGLE, "setting"),
        ("kravia.invoice_b2c", "setting"),
        (GROUPED, BUILT_IN),
    ]
    assert all("unless the profile or the checkout" in words for _, _, _, words in found)


async def test_a_merchant_initiated_invoice_says_it_in_its_payment() -> None:
    request = {"payment": {"payment_product_type": SINGLE, "invoice_channel": "merchant"}, "session": {"order": {}}}
    assert [found[:3] for found in await of(request)] == [(SINGLE, "session", Way.OURS)]


async def test_a_word_that_nobody_knows_is_nobodys() -> None:
    transaction = {"payment_product_type": SINGLE, "metadata": {"kravia:invoice_channel": "pigeon"}}
    ((_, level, way, words),) = await of(transaction)
    assert (level, way) == ("transaction", Way.NOBODY)
    assert "pigeon" in words


OURS = """
product = "{product}"
{options}
[url]
return_url = "https://shop.example/thanks"
[order]
amount = 100
currency = "NOK"
merchant_reference = "r1"
items = [{{description = "One", amount = 100}}]
[order.billing_address]
first_name = "Kari"
last_name = "Solberg"
business_name = "Fjordbygg AS"
organization_number = "923609016"
email = "kari@fjordbygg.example"
phone_number = "+4740000001"
address_line = "Strandgaten 12"
postal_code = "5013"
postal_place = "Bergen"
country = "NO"
"""
CREATED = {
    "session": lambda given: checkout_session(given, public_url=("https://i.example",)),
    "one step": lambda given: merchant_invoice(given, public_url=("https://i.example",)),
    "two steps": lambda given: merchant_invoice(given, public_url=("https://i.example",), two_step=True),
}


def sent(made: Creation) -> Json:
    """Return the request, or the two as one: what the payment and its session will say."""
    body: Json = json.loads(made.body)
    return {"payment": json.loads(made.pay), "session": body} if made.pay else body


@pytest.mark.parametrize("way", CREATED)
@pytest.mark.parametrize("suffix", ["json", "toml"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("invoice_b2b", 'invoice_channel = "merchant"'),
        ("invoice_b2b", ""),
        ("invoice_b2b_grouped", 'invoice_channel = "merchant"\ninterval = "quarterly"\ndays_until_due = 30'),
        ("invoice_b2b_grouped", ""),
    ],
)
def test_a_document_of_ours_is_explained_as_the_request_made_of_it(
    folder: Path, way: str, suffix: str, kind: str, options: str
) -> None:
    text = OURS.format(product=kind, options=options)
    given = tomllib.loads(text)
    (folder / f"ours.{suffix}").write_text(text if suffix == "toml" else json.dumps(given))
    (folder / "request.json").write_text(json.dumps(sent(CREATED[way](given))))

    def told(name: str) -> list[Json]:
        result = run("explain", name, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        found: list[Json] = json.loads(result.stdout)
        for question in ("channel", "interval", "days_until_due"):
            for level in found[0].get(question, {}).get("levels", ()):
                del level["where"]  # a payment says it elsewhere than a session does
        return found

    (found,) = told(f"ours.{suffix}")
    assert [found] == told("request.json")
    assert found["product_type"] == f"kravia.{kind}"
    assert found["channel"]["decided_by"] == ("session" if "invoice_channel" in options else BUILT_IN)
    if kind.endswith("grouped"):
        expected = ("quarterly", "30") if options else ("monthly", "14")
        assert (found["interval"]["value"], found["days_until_due"]["value"]) == expected
        assert found["interval"]["decided_by"] == found["days_until_due"]["decided_by"] == "session"


async def test_a_document_of_ours_need_not_be_whole_but_names_its_product() -> None:
    """Where the rest of it is wrong, `create` says so."""
    assert [found[:3] for found in await of({"product": "invoice_b2b", "invoice_channel": "merchant", "order": 1})] == [
        (SINGLE, "session", Way.OURS)
    ]
    with pytest.raises(ValueError, match="product: must be one of"):
        await of({"product": "invoice_b2x", "order": {}})


async def test_the_payments_own_word_wins_over_the_top() -> None:
    document = {
        "invoice_channel": "merchant",
        "payment": {"payment_product_type": SINGLE, "invoice_channel": "kravia"},
        "session": {"order": {}},
    }
    assert [found[:3] for found in await of(document)] == [(SINGLE, "session", Way.KRAVIA)]


@pytest.mark.parametrize("document", [{}, [], "x", None, {"error": {}}, {"transaction": {"id": "T1.a"}}])
async def test_what_is_none_of_these_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="neither"):
        await of(document)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_needs_no_settings_for_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "request.json").write_text(json.dumps({"payment": {"payment_product_type": GROUPED}}))
    monkeypatch.setenv("DELIVERY_GROUP_INTERVAL", "quarterly")
    monkeypatch.setenv("DELIVERY_INVOICE_CHANNEL", f"{GROUPED}=merchant")
    result = run("explain", "request.json", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (found,) = json.loads(result.stdout)
    assert (found["product_type"], found["goes_to"]) == (GROUPED, "ours")
    assert (found["channel"]["decided_by"], found["channel"]["value"]) == ("setting", "merchant")
    assert (found["interval"]["value"], found["days_until_due"]["value"]) == ("quarterly", "14")
    assert [level["level"] for level in found["channel"]["levels"] if level["won"]] == ["setting"]
    table = run("explain", "request.json").stdout
    assert "->  setting" in table
    assert "consolidated invoice" in table


def test_a_wrong_setting_is_named_for_a_file_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "request.json").write_text(json.dumps({"payment": {"payment_product_type": GROUPED}}))
    monkeypatch.setenv("DELIVERY_GROUP_DAYS_UNTIL_DUE", "366")
    result = run("explain", "request.json")
    assert result.exit_code == 2
    assert "DELIVERY_GROUP_DAYS_UNTIL_DUE" in result.stderr


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\xff", "{}"])
def test_a_file_that_is_no_such_document_is_said_to_be_none(folder: Path, content: str) -> None:
    (folder / "x.json").write_bytes(content.encode("latin-1"))
    result = run("explain", "x.json")
    assert result.exit_code == 1
    assert "x.json" in result.stderr
    assert "Traceback" not in result.output


# --- by id: read at the provider -------------------------------------------------------------------------------------


@pytest.fixture
async def at_provider(record_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Script]:
    script = Script()
    async with serve(script.handle) as server:
        at = {"CHECKOUT_URL": f"{server.url}/checkout/v1", "API_URL": f"{server.url}/api/v1"}
        for name, value in env(DATABASE_URL=record_url, ACCOUNT_ID=ACCOUNT, **at).items():
            monkeypatch.setenv(name, value)
        yield script
    changing = [seen.target for seen in server.seen if seen.method != "GET" and seen.target != TOKEN_PATH]
    assert changing == []


@pytest.mark.parametrize("recorded", [True, False])
async def test_one_that_exists_is_read_and_nothing_is_changed(
    at_provider: Script, record_url: str, *, recorded: bool
) -> None:
    if recorded:
        await asyncio.to_thread(enter, record_url, ID, outcome=Outcome.FAILED, reason="held: older than this record")
    at_provider.on(
        f"/checkout/v1/transactions/{ID}",
        json_reply({"id": ID, "status": "AUTHORIZED", "payment_product_type": SINGLE, "session": {"id": "s"}}),
    )
    at_provider.on(CHECKOUT, json_reply(own(SINGLE, invoice_channel="merchant")))
    result = await asyncio.to_thread(run, "explain", ID, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (found,) = json.loads(result.stdout)
    assert (found["channel"]["decided_by"], found["goes_to"]) == ("checkout", "ours")
    assert ("held for a person" in found["detail"]) is recorded


@pytest.mark.usefixtures("at_provider")
async def test_what_cannot_be_read_is_said() -> None:
    unknown = await asyncio.to_thread(run, "explain", "order-123")
    assert (unknown.exit_code, unknown.stderr) == (1, "No delivery is known by order-123.\n")
    missing = await asyncio.to_thread(run, "explain", ID)
    assert missing.exit_code == 1
    assert "404" in missing.stderr


async def test_without_a_record_dintero_is_asked(
    at_provider: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DELIVERY_DATABASE_URL", f"sqlite:///{tmp_path / 'nowhere.db'}")
    at_provider.on(
        f"/checkout/v1/transactions/{ID}",
        json_reply({"id": ID, "status": "AUTHORIZED", "payment_product_type": SINGLE, "session": {"id": "s"}}),
    )
    at_provider.on(CHECKOUT, json_reply(own(SINGLE, invoice_channel="merchant")))
    result = await asyncio.to_thread(run, "explain", ID)
    assert (result.exit_code, "You deliver it" in result.output) == (0, True), result.output


def test_another_product_is_nobodys_invoice(folder: Path) -> None:
    (folder / "card.json").write_text(
        json.dumps({"id": "T1.a", "payment_product_type": "card.card", "status": "AUTHORIZED"})
    )
    result = run("explain", "card.json")
    assert "It is no invoice of Kravia's, and is skipped here" in result.output
    assert "says otherwise" not in result.output
