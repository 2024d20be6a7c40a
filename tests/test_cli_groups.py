"""`groups`: what gathers, what is to come and what was billed, and what an operator's commands say of a purchase."""

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service import cli_groups
from service import delivery as d
from tests.commands import ACCOUNT, command, run, within
from tests.test_groups import BOUGHT, NORDMANN, NUMBER, enter, member

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SVENSK = d.Party(business_name="=Svensk AB", organization_number="5560360793", country="SE")


@pytest.fixture
def record(record_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(cli_groups, "now", lambda: NOW)
    members = (
        member("a"),
        member("b", amount=700),
        member("v", outcome=d.Outcome.CANCELLED),
        member("slip", billing=replace(NORDMANN, business_name="NORDMANN AS")),
        member("s", billing=SVENSK, currency="SEK", amount=1),
        member("x", datetime(2026, 10, 10, tzinfo=UTC), number=NUMBER),
    )

    async def work(store: d.Store) -> None:
        for one in members:
            await enter(store, one)
        (found,) = await store.members(d.Members(transaction_id=f"{ACCOUNT}.x"))
        assert found.purchase.invoice_id is not None
        await store.enter_invoice(found.purchase.invoice_id, found.delivery, BOUGHT)
        (claim,) = await store.claim(ACCOUNT, d.PROVIDER_LANE, 1, lease=60, suspects=False)
        await store.save(claim, replace(claim.delivery, invoice_number=NUMBER), d.Schedule(due_in=10**6))

    within(record_url, work)
    return record_url


def told(*arguments: str) -> list[dict[str, object]]:
    result = run("groups", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def test_the_list_has_every_group(record: str) -> None:
    assert record
    found = told("list")
    assert [(one["period"], one["business_name"], one["purchases"], one["amount"], one["voided"]) for one in found] == [
        ("2026-10", "Nordmann AS", 1, 50000, 0),
        *sorted(
            [("2026-11", "Nordmann AS", 2, 50700, 1), ("2026-11", "NORDMANN AS", 1, 50000, 0)],
            key=lambda row: [str(one["group"]) for one in found if one["business_name"] == row[1]][-1],
        ),
        ("2026-11", "=Svensk AB", 1, 1, 0),
    ]
    by_name = {(one["business_name"], one["period"]): one for one in found}
    plain, slip = by_name["Nordmann AS", "2026-11"], by_name["NORDMANN AS", "2026-11"]
    assert (plain["looks_like"], slip["looks_like"]) == ([slip["group"]], [plain["group"]])
    assert (plain["state"], plain["issue_date"], plain["due_date"]) == ("open", "2026-12-01", "2026-12-15")
    table = run("groups", "list").stdout
    assert "4 groups: 1507.00 NOK, 0.01 SEK." in table
    assert "2026-11-01 or 2026-11-02" not in table  # a Sunday by both rules: Monday the 2nd
    assert "looks like" in table


def test_the_list_can_be_narrowed(record: str) -> None:
    assert record
    assert {one["business_name"] for one in told("list", "--customer", "556036-0793")} == {"=Svensk AB"}
    assert {one["period"] for one in told("list", "--period", "2026-10")} == {"2026-10"}
    assert told("list", "--period", "2026-Q4") == []  # the quarter begins on the month's day, and is not it
    wrong = run("groups", "list", "--period", "2026-13")
    assert wrong.exit_code == 2


def test_csv_has_no_formula_and_its_numbers_as_they_are(record: str) -> None:
    assert record
    rows = list(csv.DictReader(io.StringIO(run("groups", "list", "--csv").stdout)))
    svensk = next(row for row in rows if row["currency"] == "SEK")
    assert (svensk["business_name"], svensk["purchases"], svensk["amount"]) == ("'=Svensk AB", "1", "1")
    assert svensk["certain"] == "true"
    assert run("groups", "list", "--csv", "--json").exit_code == 2


def test_the_forecast_has_what_is_not_billed(record: str) -> None:
    assert record
    found = told("forecast")
    assert [
        (one["issue_date"], one["currency"], one["invoices"], one["purchases"], one["amount"]) for one in found
    ] == [
        ("2026-12-01", "NOK", 2, 3, 100700),
        ("2026-12-01", "SEK", 1, 1, 1),
    ]
    assert "3 invoices to come: 1007.00 NOK, 0.01 SEK." in run("groups", "forecast").stdout


def shown(*arguments: str) -> dict[str, object]:
    result = run("groups", "show", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_a_group_is_shown_by_any_of_its_names(record: str) -> None:
    assert record
    october = shown(NUMBER)
    assert (
        october
        == shown(str(october["group"])[:6])
        == shown(f"{ACCOUNT}.x")
        == shown("923456789", "--period", "2026-10")
    )
    assert [one["transaction_id"] for one in october["members"]] == [f"{ACCOUNT}.x"]  # type: ignore[attr-defined]
    assert october["differences"] == ["invoice date 2026-12-01, expected 2026-11-02"]
    assert "invoice date 2026-12-01, expected 2026-11-02" in run("groups", "show", NUMBER).stdout


def test_what_is_no_group_or_several_is_said(record: str) -> None:
    assert record
    nothing = run("groups", "show", "nothing")
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    several = run("groups", "show", "923456789", "--period", "2026-11")
    assert several.exit_code == 1
    assert "2 groups are known" in several.stderr


def test_a_purchase_cannot_be_resent_and_says_what_can(record: str) -> None:
    before = command("show", f"{ACCOUNT}.x", "--json").stdout
    result = command("resend", f"{ACCOUNT}.x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"deliveries resend {NUMBER}" in result.stderr
    unbilled = command("resend", f"{ACCOUNT}.a")
    assert unbilled.exit_code == 1
    assert "has not come yet" in unbilled.stderr
    found = within(record, lambda store: store.find(f"{ACCOUNT}.x"))
    (after,) = [one for one in found if one.kind is d.Kind.PURCHASE]
    assert (after.round, after.outcome.value) == (0, json.loads(before)["outcome"])


def test_a_purchase_shows_its_group_and_an_invoice_its_purchases(record: str) -> None:
    assert record
    purchase = json.loads(command("show", f"{ACCOUNT}.a", "--json").stdout)
    assert (purchase["period"], purchase["grouped_invoice_number"]) == ("2026-11", None)
    assert purchase["group"] == shown(f"{ACCOUNT}.a")["group"]
    assert "its invoice has not come yet" in command("show", f"{ACCOUNT}.a").stdout
    invoice = json.loads(command("show", f"{ACCOUNT}.invoice.{NUMBER}", "--json").stdout)
    assert invoice["purchases"] == [f"{ACCOUNT}.x"]
    assert "Purchases\n" in command("show", f"{ACCOUNT}.invoice.{NUMBER}").stdout


def test_half_an_invoice_is_not_compared_with_itself(record: str) -> None:
    """One purchase of October is billed with November's, which nobody sees who looks at October alone."""

    async def work(store: d.Store) -> None:
        for one in (member("n1", number="A1B2C-000009"), member("n2", number="A1B2C-000009")):
            await enter(store, one)
        await enter(store, member("o", datetime(2026, 10, 11, tzinfo=UTC), number="A1B2C-000009"))

    within(record, work)
    (october,) = told("list", "--period", "2026-10")
    (same,) = [one for one in told("list") if one["period"] == "2026-10"]
    assert october == same
    assert "billed with 2026-11, expected with 2026-10" in str(october["differences"])


def test_one_group_as_csv_and_by_its_customer(record: str) -> None:
    assert record
    result = run("groups", "show", "--period", "2026-10", "--customer", "923 456 789", "--csv")
    assert (result.exit_code, result.stderr) == (0, "")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert (row["transaction_id"], row["amount"], row["invoice_number"]) == (f"{ACCOUNT}.x", "50000", NUMBER)
    assert run("groups", "show", "--csv").exit_code == 2
    assert run("groups", "show", str(row["transaction_id"]), "--customer", "1").exit_code == 1


@pytest.mark.parametrize("what", ["list", "forecast"])
def test_csv_of_nothing_has_its_head(record: str, what: str) -> None:
    assert record
    result = run("groups", what, "--period", "2024-01", "--csv")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "issue_date" in result.stdout
