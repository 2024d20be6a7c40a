"""From a merchant's document to what is sent, and every mistake by its path."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from service.ordering import PRODUCTS, Creation, Mistaken, Way, checkout_session, merchant_invoice
from tests.orders import BUSINESS, CALLBACK, CONSUMER, ITEM, PUBLIC, document


def mistakes(document: object, *, session: bool = False, **more: Any) -> list[str]:
    make = checkout_session if session else merchant_invoice
    with pytest.raises(Mistaken) as found:
        make(document, public_url=(PUBLIC,), **more)
    return list(found.value.mistakes)


def invoice(document: object, **more: Any) -> Creation:
    return merchant_invoice(document, public_url=(PUBLIC,), **more)


DINTERO = {
    "payment": {
        "payment_product_type": "kravia.invoice_b2b",
        "operation": "invoice_payment",
        "days_until_due": 10,
    },
    "session": {
        "url": {"callback_url": f"{PUBLIC}/callback?own=1"},
        "order": {
            "amount": 29900,
            "currency": "NOK",
            "vat_amount": 5980,
            "merchant_reference": "inv-2026-001",
            "items": [ITEM | {"vat_amount": 5980, "quantity": 1}],
            "billing_address": BUSINESS,
        },
    },
}


def test_dinteros_own_form_goes_as_it_is() -> None:
    made = invoice(DINTERO)
    body = json.loads(made.body)
    assert body["payment"] == DINTERO["payment"]
    assert body["session"]["order"] == DINTERO["session"]["order"]
    url = f"{PUBLIC}/callback?own=1&report_event=VOID&report_event=CAPTURE&report_error=true"
    assert body["session"]["url"]["callback_url"] == url
    assert (made.way, made.reference, made.amount, made.currency) == (Way.ONE_STEP, "inv-2026-001", 29900, "NOK")
    assert made.product_type == "kravia.invoice_b2b"
    assert (made.paths, made.toggles()) == (("sessions/pay",), "strict-merchant-reference")
    assert made.toggles(again=True) == "strict-success-merchant-reference"


@pytest.mark.parametrize("product", PRODUCTS)
def test_our_own_form_makes_the_same(product: str) -> None:
    body = json.loads(invoice(document(product, invoice_channel="merchant", days_until_due=0)).body)
    assert body["payment"] == {
        "payment_product_type": f"kravia.{product}",
        "operation": "invoice_payment",
        "days_until_due": 0,
        "invoice_channel": "merchant",
    }
    assert body["session"]["url"] == {"callback_url": CALLBACK}
    order = body["session"]["order"]
    assert order["billing_address"] == (CONSUMER if product == "invoice_b2c" else BUSINESS)
    assert (order["vat_amount"], order["items"][0]["vat_amount"], order["items"][0]["quantity"]) == (5980, 5980, 1)


def test_what_is_left_out() -> None:
    """Fourteen days, monthly; a channel that nobody names stays unnamed, so that profile and checkout decide."""
    body = json.loads(invoice(document("invoice_b2b_grouped")).body)
    assert (body["payment"]["days_until_due"], "invoice_channel" in body["payment"]) == (14, False)
    kravia = body["session"]["configuration"]["kravia"]
    assert kravia["invoice_b2b_grouped"]["invoice_schedule"] == {"interval": "monthly"}
    body = json.loads(invoice(document("invoice_b2b_grouped", interval="quarterly")).body)
    kravia = body["session"]["configuration"]["kravia"]
    assert kravia["invoice_b2b_grouped"]["invoice_schedule"] == {"interval": "quarterly"}


@pytest.mark.parametrize(("profile", "path"), [(None, "sessions"), ("p1", "sessions-profile")])
def test_in_two_steps_the_address_is_in_the_pay_call_and_nobody_is_identified(profile: str | None, path: str) -> None:
    made = invoice(document(days_until_due=7), two_step=True, profile=profile)
    assert made.paths == (path, "sessions/{id}/pay")
    assert made.pay is not None
    session, pay = json.loads(made.body), json.loads(made.pay)
    assert "billing_address" not in session["order"]
    assert session.get("profile_id") == profile
    options = session["configuration"]["kravia"]["invoice_b2b"]
    assert (options["require_identity_verification"], options["days_until_due"]) == (False, 7)
    assert pay == {
        "payment_product_type": "kravia.invoice_b2b",
        "billing_address": BUSINESS,
        "days_until_due": 7,
    }


SEED = json.loads(
    """{"url": {"return_url": "https://example.com/accept", "callback_url": "https://example.com/callback"},
    "order": {"amount": 50000, "currency": "NOK", "merchant_reference": "order-123", "items": []},
    "configuration": {"kravia": {"type": "payment_type", "invoice_b2b": {"type": "payment_product_type",
    "enabled": true, "days_until_due": 14, "invoice_channel": "merchant"}}}}"""
)


def test_dinteros_example_of_a_session_works_and_what_is_odd_is_told() -> None:
    made = checkout_session(SEED, public_url=(PUBLIC,))
    body = json.loads(made.body)
    options = body["configuration"]["kravia"]["invoice_b2b"]
    seed = SEED["configuration"]["kravia"]["invoice_b2b"]
    assert options == seed | {"require_identity_verification": True}
    assert body["url"] == SEED["url"]
    assert (made.way, made.paths, made.toggles()) == (Way.SESSION, ("sessions-profile",), None)
    assert len(made.warnings) == 2
    assert "will not be called" in made.warnings[0]


def test_a_session_in_our_form() -> None:
    given = document(
        "invoice_b2b_grouped", interval="quarterly", enabled=False, url={"return_url": "https://a.example"}
    )
    made = checkout_session(given, public_url=(PUBLIC,), profile="p1")
    body = json.loads(made.body)
    assert body["configuration"]["kravia"]["invoice_b2b_grouped"] == {
        "type": "payment_product_type",
        "enabled": False,
        "days_until_due": 14,
        "invoice_schedule": {"interval": "quarterly"},
        "require_identity_verification": True,
    }
    assert (body["profile_id"], body["url"]["callback_url"]) == ("p1", CALLBACK)
    assert made.toggles() == "strict-session-amounts"
    assert {"product", "interval", "enabled"}.isdisjoint(body)


def test_every_mistake_is_told_with_its_path() -> None:
    given = document(days_until_due=366, invoice_channel="post", enabled="yes", interval="monthly")
    given["order"] |= {"currency": "kr", "merchant_reference": "r" * 36}
    given["order"]["items"] = [{**ITEM, "amount": 299.0}, {**ITEM, "description": " ", "quantity": 0}, 7]
    given["order"]["billing_address"] |= {
        "organization_number": "123456789",
        "phone_number": "98989898",
        "postal_code": "501",
        "email": "kari",
        "last_name": "",
    }
    found = mistakes(given)
    assert [line.partition(": ")[0] for line in found] == [
        "enabled",
        "days_until_due",
        "invoice_channel",
        "invoice_schedule",
        "order.currency",
        "order.merchant_reference",
        "order.items[0].amount",
        "order.items[1].description",
        "order.items[1].quantity",
        "order.items[2]",
        "order.items[1].line_id",
        "order.billing_address.last_name",
        "order.billing_address.postal_code",
        "order.billing_address.phone_number",
        "order.billing_address.email",
        "order.billing_address.organization_number",
    ]
    assert not [line for line in found if "123456789" in line or "98989898" in line]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"items": [ITEM, ITEM | {"line_id": "2"}]}, "order.items: add up to 59800, and order.amount is 29900"),
        ({"vat_amount": 1}, "order.vat_amount: is 1, and the items' add up to 5980"),
        ({"items": []}, "order.items: is missing"),
        ({"amount": True}, "order.amount: is no whole number"),
        ({"amount": 0, "items": [ITEM | {"amount": 0}]}, "order.amount: must be at least 1"),
        ({"billing_adress": {}, "billing_address": None}, "order.billing_address: is missing"),
        ({"merchant_reference": "a\nb"}, "order.merchant_reference: holds a line break"),
    ],
)
def test_an_order_that_will_not_do(change: Any, words: str) -> None:
    given = document()
    given["order"] |= change
    assert [line for line in mistakes(given) if line.startswith(words)]


def test_shipping_counts_beside_the_items() -> None:
    given = document(amount=1000)
    given["order"] |= {"amount": 1500, "shipping_option": {"line_id": "ship", "amount": 500, "vat_amount": 100}}
    assert json.loads(invoice(given).body)["session"]["order"]["vat_amount"] == 300


@pytest.mark.parametrize(
    ("given", "more", "words"),
    [
        ([], {}, "the document: must be an object"),
        ({"order": 1}, {}, "order: must be an object"),
        (document("invoice_b2b2"), {}, "product: must be one of"),
        (document(), {"profile": "p1"}, "--profile: needs --two-step"),
        (
            document("invoice_b2c") | {"order": document()["order"]},
            {},
            "order.billing_address.business_name: is for bus",
        ),
        (document(url={"callback_url": "http://shop.example/callback"}), {}, "url.callback_url: must be an https"),
        (document(days_until_du=3), {}, "days_until_du: is unknown; is days_until_due meant?"),
        (document(metadata={"half": "\ud800"}), {}, "the document: holds what JSON cannot carry"),
        (document(metadata={"no": float("nan")}), {}, "the document: holds what JSON cannot carry"),
    ],
)
def test_a_document_that_will_not_do(given: Any, more: Any, words: str) -> None:
    assert [line for line in mistakes(given, **more) if line.startswith(words)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"require_identity_verification": False, "invoice_channel": "kravia"}, "may be false only where"),
        ({"days_until_due": -1}, "configuration.kravia.invoice_b2c.days_until_due: must be at least 0"),
        ({"invoice_schedule": {"interval": "monthly"}}, "is for invoice_b2b_grouped only"),
    ],
)
def test_a_configuration_that_will_not_do(options: Any, words: str) -> None:
    found = mistakes({**SEED, "configuration": {"kravia": {"invoice_b2c": options}}}, session=True)
    assert [line for line in found if words in line]


def test_a_session_has_somewhere_to_return_to() -> None:
    assert mistakes({**SEED, "url": {}}, session=True) == ["url.return_url: is missing"]


def test_the_examples_of_the_documents_are_read() -> None:
    """Their customer's organisation number has a wrong check digit, and that alone is refused."""
    file = Path(__file__).parent / "data" / "sessions_pay_b2b_request.json"
    found = mistakes(json.loads(file.read_text()))
    assert found == ["session.order.billing_address.organization_number: has a wrong check digit: is a digit mistyped?"]


def test_two_steps_are_strict_about_what_was_paid_only_until_they_pay() -> None:
    made = invoice(document(), two_step=True)
    assert made.toggles(opening=True) == "strict-success-merchant-reference"
    assert made.toggles() == "strict-merchant-reference"


@pytest.mark.parametrize("two_step", [False, True])
def test_what_else_a_configuration_says_stays(*, two_step: bool) -> None:
    options = {"payability": {"enabled": True}, "days_until_due": 9}
    configuration = {"theme": {"color": "red"}, "kravia": {"note": "x", "invoice_b2b": options}}
    body = json.loads(invoice(document(configuration=configuration), two_step=two_step).body)
    kept = (body if two_step else body["session"])["configuration"]
    assert (kept["theme"], kept["kravia"]["note"]) == ({"color": "red"}, "x")
    assert kept["kravia"]["invoice_b2b"]["payability"] == {"enabled": True}
    if not two_step:
        assert "days_until_due" not in kept["kravia"]["invoice_b2b"]
        assert body["payment"]["days_until_due"] == 9


@pytest.mark.parametrize("value", ["r" * 36, "a\nb", 7])
def test_the_other_references_are_checked_too(value: object) -> None:
    given = document()
    given["order"]["merchant_reference_2"] = value
    given["order"]["billing_address"]["customer_reference"] = value
    assert [line.partition(":")[0] for line in mistakes(given)] == [
        "order.merchant_reference_2",
        "order.billing_address.customer_reference",
    ]


def test_every_public_url_of_ours_is_ours() -> None:
    other = "https://other.example.com"
    given = document(url={"callback_url": f"{other}/callback"})
    made = merchant_invoice(given, public_url=(PUBLIC, other))
    assert made.warnings == ()
    assert json.loads(made.body)["session"]["url"]["callback_url"] == CALLBACK.replace(PUBLIC, other)


def test_what_is_null_counts_as_left_out() -> None:
    given = document(days_until_due=None)
    given["order"]["items"][0] |= {"line_id": None, "id": None, "quantity": None}
    body = json.loads(invoice(given).body)
    (item,) = body["session"]["order"]["items"]
    assert (item["line_id"], item["id"], item["quantity"]) == ("1", "1", 1)
    assert body["payment"]["days_until_due"] == 14


def test_a_time_of_toml_is_sent_as_iso_8601_has_it() -> None:
    given = document()
    given["order"]["discount_codes"] = [datetime(2026, 1, 1, 10, tzinfo=UTC), date(2026, 1, 2)]
    order = json.loads(invoice(given).body)["session"]["order"]
    assert order["discount_codes"] == ["2026-01-01T10:00:00+00:00", "2026-01-02"]
