"""What an SMS can say for nothing, and into how many parts a text goes."""

from datetime import date

import pytest
from babel.dates import format_date
from babel.numbers import format_currency

from service.channels.gsm7 import BASIC, EXTENDED, is_gsm7, plain, size


def test_alphabet_has_its_127_letters_and_the_escaped_ones() -> None:
    assert (len(BASIC), len(EXTENDED)) == (127, 10)  # the 128th is the escape itself
    assert is_gsm7("Åå Ææ Øø Ää Öö É ü ß € @ {}")
    assert not BASIC & EXTENDED


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("kr 12\u00a0345,50", "kr 12 345,50"),
        ("12\u202f345", "12 345"),
        ("\u221212 \u2013 a \u2014 b", "-12 - a - b"),
        ("\u201cda\u201d \u2019s \u00abher\u00bb", '"da" \'s "her"'),
        ("a\u2026", "a..."),
        ("  a  b \r\n\n\n\n c\u00ad\u200b ", "a b\n\nc"),
        ("a\u030a", "å"),  # two code points for one letter
    ],
)
def test_typography_becomes_plain(written: str, sent: str) -> None:
    assert plain(written) == sent
    assert is_gsm7(sent)


def test_sami_names_are_spelt_right_and_paid_for() -> None:
    text = plain("Áŋŋel Čáhppes\u00a0AS")
    assert text == "Áŋŋel Čáhppes AS"
    assert not size(text).gsm7


@pytest.mark.parametrize(
    ("text", "units", "parts"),
    [
        ("", 0, 1),
        ("a" * 160, 160, 1),
        ("a" * 161, 161, 2),
        ("a" * 306, 306, 2),
        ("a" * 307, 307, 3),
        ("€" * 80, 160, 1),
        ("a" * 152 + "€" + "a" * 152, 306, 3),  # the euro does not fit behind the 152nd
        ("č" * 70, 70, 1),
        ("č" * 71, 71, 2),
        ("č" * 134, 134, 2),
        ("č" * 135, 135, 3),
        ("\U0001f600" * 35, 70, 1),
        ("č" * 66 + "\U0001f600" + "č" * 66, 134, 3),
    ],
)
def test_parts(text: str, units: int, parts: int) -> None:
    found = size(text)
    assert (found.units, found.parts) == (units, parts)


@pytest.mark.parametrize("locale", ["nb", "nn", "sv", "fi", "da", "en"])
@pytest.mark.parametrize("currency", ["NOK", "SEK", "DKK", "EUR"])
def test_what_babel_writes_goes_in_one_part(locale: str, currency: str) -> None:
    """Its amounts hold a no-break space, which alone would halve what a part holds."""
    amount = format_currency(-12345.5, currency, locale=locale)
    due = format_date(date(2026, 11, 14), format="long", locale=locale)
    written = f"Faktura 10042 fra Bjørns Sykkelverksted: {amount}, {due}. https://f.eksempel.no/i/{'x' * 22}"
    assert locale == "en" or not is_gsm7(amount)
    assert size(plain(written)).parts == 1
    assert size(plain(written)).gsm7
