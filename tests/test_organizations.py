"""Organisation numbers: right ones in the one way to write them, and wrong digits refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.organizations import organization_number


@pytest.mark.parametrize(
    ("country", "written", "number"),
    [
        ("NO", "923609016", "923609016"),
        ("NO", "NO 923 609 016 MVA", "923609016"),
        ("NO", "974760673", "974760673"),
        ("SE", "556016-0680", "5560160680"),
        ("SE", "165560160680", "5560160680"),
        ("SE", "SE556016068001", "5560160680"),
        ("FI", "0112038-9", "0112038-9"),
        ("FI", "FI01120389", "0112038-9"),
        ("DK", "DK 22 75 62 14", "22756214"),
        ("DE", " HRB 12345 ", "HRB 12345"),
    ],
)
def test_right_numbers(country: str, written: str, number: str) -> None:
    assert organization_number(written, country) == number


@pytest.mark.parametrize(
    ("country", "written"),
    [
        ("NO", "123456789"),  # of Dintero's own examples
        ("NO", "000000000"),
        ("NO", "92360901"),
        ("NO", "٩٢٣٦٠٩٠١٦"),
        ("SE", "5560160681"),
        ("SE", "0000000000"),
        ("FI", "0112038-8"),
        ("FI", "0000000-0"),
        ("DK", "22756215"),
        ("DK", "2275621"),
        ("NO", ""),
    ],
)
def test_wrong_numbers_are_refused_and_not_quoted(country: str, written: str) -> None:
    with pytest.raises(ValueError, match=r"must be an organisation number|wrong check digit") as refused:
        organization_number(written, country)
    assert not written or written not in str(refused.value)


RIGHT = [("NO", "923609016"), ("SE", "5560160680"), ("FI", "0112038-9"), ("DK", "22756214")]


@pytest.mark.parametrize(("country", "number"), RIGHT)
@given(data=st.data())
def test_one_mistyped_digit_is_always_found(country: str, number: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from([i for i, letter in enumerate(number) if letter.isdecimal()]))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[place]]))
    with pytest.raises(ValueError, match="wrong check digit"):
        organization_number(number[:place] + other + number[place + 1 :], country)
