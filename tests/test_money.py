"""Minor units are ISO 4217's, and the same wherever an amount is shown."""

from dataclasses import replace
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from babel.numbers import get_currency_precision, get_territory_currencies
from hypothesis import given
from hypothesis import strategies as st

from service.delivery import Brand, Purpose
from service.money import in_units, minor_digits
from service.render import TemplateRenderer, open_renderer
from service.render.samples import BARE, HERE
from service.simulator.stage import amount_of
from service.terminal import money

# Where Unicode tells what is customary, and ISO 4217 (and so a provider) counts on.
CUSTOM = {"AFN", "ALL", "IRR", "KPW", "LAK", "LBP", "MGA", "MMK", "RSD", "SOS", "SYP", "YER", "IQD"}
COUNTRIES = "NO SE FI DK DE GB US CH PL CZ HU IS JP KR CL PY VN KW BH JO OM TN LY IQ RS AL IN TH AU CA UG RW".split()  # noqa: SIM905


@pytest.mark.parametrize("country", COUNTRIES)
def test_decimals_are_the_customary_ones_unless_the_standard_differs(country: str) -> None:
    for currency in get_territory_currencies(country):
        expected = {"IQD": 3}.get(currency, 2) if currency in CUSTOM else get_currency_precision(currency)
        assert minor_digits(currency) == expected, currency


@given(st.integers(-(10**40), 10**40), st.sampled_from(["NOK", "JPY", "KWD", "CLF", ""]))
def test_no_amount_is_rounded(minor: int, currency: str) -> None:
    sign, digits, exponent = in_units(minor, currency).as_tuple()
    assert Decimal((sign, digits, 0)) == minor
    assert exponent == -minor_digits(currency)


@pytest.fixture(scope="module")
def renderer() -> TemplateRenderer:
    return open_renderer(brand=Brand(name="x"), templates_dir=None, locale="en", timezone=ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("currency", "shown"),
    [("RSD", "12,345.67"), ("IQD", "1,234.567"), ("JPY", "1,234,567"), ("NOK", "12,345.67"), ("MGA", "12,345.67")],
)
def test_mail_terminal_and_demo_agree(renderer: TemplateRenderer, currency: str, shown: str) -> None:
    transaction = replace(BARE, amount=1234567, currency=currency)
    assert money(1234567, currency) == f"{shown.replace(',', '')} {currency}"
    assert amount_of({"amount": 1234567, "currency": currency}) == f"{shown} {currency}"
    mail = renderer.render("mail", transaction, purpose=Purpose.FIRST, recipient=HERE)
    assert shown in mail.text
