"""A transaction's JSON becomes a value, whatever is in it."""

import copy
import dataclasses
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.delivery import ChannelFinding, DecidedBy, Line, Party, Standing, Transaction, TransientFailure
from service.dintero.transaction import parse_transaction

DATA = Path(__file__).parent / "data"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
TIMELINE = json.loads((DATA / "kravia_timeline_synthetic.json").read_text())
REGISTERED: dict[str, Any] = TIMELINE["registered"]


def parse(document: object) -> Transaction:
    return parse_transaction(document, read_at=NOW)


def changed(**changes: object) -> Transaction:
    return parse({**REGISTERED, **changes})


def event(name: str, at: str | None = None, *, success: object = True, **more: object) -> dict[str, object]:
    return {"event": name, "success": success, **({"created_at": at} if at else {}), **more}


def test_a_registered_invoice() -> None:
    assert parse(REGISTERED) == Transaction(
        id="T12345678.465UfBENeLpkBvwmqfTC4k",
        standing=Standing.AUTHORIZED,
        status="AUTHORIZED",
        product="kravia",
        product_type="kravia.invoice_b2b",
        amount=50000,
        currency="NOK",
        read_at=NOW,
        vat_amount=10000,
        merchant_reference="order-123",
        session_id="T12345678.465U8CUzaPVpneu1wt8Wei",
        created_at=datetime(2026, 7, 1, 9, 59, 58, 120000, tzinfo=UTC),
        invoice_number="A1B2C-000001",
        invoice_url="https://api.dintero.com/v1/files/f-abc123",
        invoice_date=date(2026, 7, 1),
        due_date=date(2026, 7, 15),
        billing=Party(
            first_name="Ola",
            last_name="Nordmann",
            business_name="Nordmann AS",
            organization_number="123456789",
            email="ola@nordmann.no",
            phone_number="+4799999999",
            country="NO",
        ),
        customer=Party(email="ola@nordmann.no", phone_number="+4799999999"),
        lines=(Line(line_id="1", amount=50000, description="Chair", quantity=Decimal(1)),),
        findings=(ChannelFinding(level=DecidedBy.TRANSACTION, value="merchant"),),
        purchased_at=datetime(2026, 7, 1, 10, 0, 1, tzinfo=UTC),
    )


def test_the_kravia_timeline() -> None:
    begun, paid = (parse(TIMELINE[name]).collection for name in ("collection_started", "paid"))
    assert (begun.begun, begun.paid, begun.begun_at) == (True, False, datetime(2026, 7, 1, 10, 5, tzinfo=UTC))
    assert begun.events[0].reference == "T12345678.465UfBENeLpkBvwmqfTC4k:invoice"
    assert begun.events[0].initiates
    assert (paid.begun, paid.paid, paid.begun_at) == (True, True, datetime(2026, 7, 1, 10, 5, tzinfo=UTC))
    assert paid.events[1].answers == paid.events[0].request_id == "05c91a5b-9c3d-4214-a7e1-e472dbe22eb9"
    assert paid.partial is None


def test_the_published_documents() -> None:
    assembled = parse(json.loads((DATA / "transaction_assembled_from_published_fields.json").read_text()))
    assert assembled.product == "payex"
    assert (assembled.collection.begun, assembled.collection.paid) == (True, False)
    assert [found.amount for found in assembled.collection.events] == [59700, 8600]
    assert assembled.vat_amount is None
    snippet = parse(json.loads((DATA / "transaction_kravia_seed_snippet.json").read_text()))
    assert (snippet.product, snippet.amount, snippet.billing, snippet.lines) == ("kravia", None, None, ())


@pytest.mark.parametrize(
    ("status", "standing"),
    [
        ("INITIATED", Standing.INITIATED),
        ("INITIALIZED", Standing.INITIATED),
        ("ON_HOLD", Standing.HELD),
        ("AUTHORIZED", Standing.AUTHORIZED),
        ("CAPTURED", Standing.AUTHORIZED),
        ("PARTIALLY_CAPTURED", Standing.AUTHORIZED),
        ("AUTHORIZATION_VOIDED", Standing.VOIDED),
        ("DECLINED", Standing.DECLINED),
        ("FAILED", Standing.FAILED),
        ("REFUNDED", Standing.REFUNDED),
        ("PARTIALLY_REFUNDED", Standing.REFUNDED),
        ("PARTIALLY_CAPTURED_REFUNDED", Standing.REFUNDED),
        ("UNKNOWN", Standing.UNKNOWN),
        ("SOMETHING_NEW", Standing.UNKNOWN),
        (7, Standing.UNKNOWN),
        (None, Standing.UNKNOWN),
    ],
)
def test_standing(status: object, standing: Standing) -> None:
    assert changed(status=status).standing is standing


# --- collection -------------------------------------------------------------------------------------------------------

T1, T2, T3, T4 = (f"2026-07-0{day}T10:00:00Z" for day in (1, 2, 3, 4))
D1, D2, D3 = (datetime(2026, 7, day, 10, tzinfo=UTC) for day in (1, 2, 3))


@pytest.mark.parametrize(
    ("status", "events", "begun", "begun_at", "paid", "partial"),
    [
        ("AUTHORIZED", [], False, None, False, None),
        ("CAPTURED", [], True, None, False, None),
        ("CAPTURED", [event("CAPTURE", T1)], True, D1, False, None),
        ("AUTHORIZED", [event("INITIATE_CAPTURE", T1)], True, D1, False, None),
        ("AUTHORIZED", [event("INITIATE_CAPTURE", T1, success=False)], False, None, False, None),
        ("AUTHORIZED", [event("INITIATE_CAPTURE", T1, success="true")], False, None, False, None),
        ("AUTHORIZED", [event("INITIATE_CAPTURE")], True, None, False, None),
        ("AUTHORIZED", [event("INITIATE_CAPTURE", T1), event("INITIATE_CAPTURE", T2)], True, D1, False, None),
        ("CAPTURED", [event("CAPTURE", T2), event("INITIATE_CAPTURE", T1)], True, D1, True, None),
        ("CAPTURED", [event("CAPTURE"), event("INITIATE_CAPTURE", T1)], True, None, False, None),
        ("CAPTURED", [event("INITIATE_CAPTURE", T1, success=False), event("CAPTURE", T2)], True, D2, False, None),
        ("AUTHORIZATION_VOIDED", [event("INITIATE_CAPTURE", T1), event("VOID", T2)], False, None, False, None),
        ("AUTHORIZED", [event("INITIATE_CAPTURE", T1), event("VOID", T2, success=False)], True, D1, False, None),
        ("AUTHORIZED", [event("INITIATE_CAPTURE", T1), event("INITIATE_VOID", T2)], True, D1, False, None),
        (
            "AUTHORIZED",
            [event("CAPTURE", T1), event("VOID", T2), event("INITIATE_CAPTURE", T3)],
            True,
            D3,
            False,
            None,
        ),
        (
            "PARTIALLY_CAPTURED",
            [event("CAPTURE", T1, amount=100), event("CAPTURE", T2, amount=50)],
            True,
            D1,
            False,
            150,
        ),
        ("PARTIALLY_CAPTURED", [event("CAPTURE", T1, amount=9, success=False)], False, None, False, 0),
        (
            "PARTIALLY_CAPTURED",
            [event("INITIATE_CAPTURE", T1, amount=150), event("CAPTURE", T2, amount=50)],
            True,
            D1,
            True,
            None,
        ),
        ("AUTHORIZED", [{"name": "INITIATE_CAPTURE", "success": True, "created_at": T1}], True, D1, False, None),
        ("AUTHORIZED", [7, None, "x", [], {"event": 7, "success": True}], False, None, False, None),
        ("AUTHORIZED", {"event": "CAPTURE"}, False, None, False, None),
    ],
)
def test_collection(
    *, status: str, events: object, begun: bool, begun_at: datetime | None, paid: bool, partial: int | None
) -> None:
    found = changed(status=status, events=events).collection
    assert (found.begun, found.begun_at, found.paid, found.partial) == (begun, begun_at, paid, partial)


def test_when_it_was_voided() -> None:
    events = [event("VOID", T3), event("VOID", T4, success=False), event("VOID", T1)]
    assert changed(status="AUTHORIZATION_VOIDED", events=events).voided_at == D3
    assert changed(status="AUTHORIZATION_VOIDED", events=[]).voided_at is None
    assert changed(status="AUTHORIZED", events=events).voided_at is None


def test_a_failed_capture_says_what_may_be_done() -> None:
    error = {
        "code": "E1",
        "message": "ola@nordmann.no is blocked",
        "retry_policy": {"retry_codes": ["RETRY_AFTER_DELAY"], "retry_after": "90"},
    }
    events = [
        event("CAPTURE", T1, success=False, id=3, error=error, initiate_request_id="r1", event_reference="ours"),
        event("CAPTURE", T2, success=False, error={"retry_policy": {"retry_codes": ["DO_NOT_RETRY"]}}),
        event("CAPTURE", T3, success=False, error={"retry_policy": {"retry_codes": ["RETRY_IMMEDIATELY"]}}),
        event("CAPTURE", T4, success=False, error="broken"),
    ]
    delayed, final, now, unsaid = changed(events=events).collection.events
    assert (delayed.id, delayed.answers, delayed.reference) == ("3", "r1", "ours")
    assert (delayed.error, delayed.retry_after, delayed.retryable) == ("E1: *** is blocked", 90.0, True)
    assert (final.retryable, final.retry_after) == (False, None)
    assert (now.retryable, now.retry_after) == (True, 0.0)
    assert (unsaid.error, unsaid.retryable, unsaid.retry_after) == (None, True, None)


# --- the single members -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [None, True, "50000", 50000.0, 500.5, [50000], 10**30, -(10**30)])
def test_what_is_no_whole_amount_is_none(amount: object) -> None:
    found = changed(amount=amount, items=[{"line_id": "1", "amount": amount}])
    assert found.amount is None
    assert found.lines == (Line(line_id="1", amount=None),)


def test_negative_and_zero_amounts_stay() -> None:
    assert changed(amount=-5).amount == -5
    assert changed(amount=0).amount == 0


def test_items_that_are_none_keep_their_place() -> None:
    found = changed(items=[{"line_id": "1", "amount": 50000}, "rubbish", {"line_id": 2, "amount": 3}])
    assert found.lines == (
        Line(line_id="1", amount=50000),
        Line(line_id=None, amount=None),
        Line(line_id=None, amount=3),
    )
    assert changed(items={"line_id": "1"}).lines == ()


def test_vat_is_the_sum_of_all_or_the_orders_own() -> None:
    full = [{"line_id": "1", "vat_amount": 10}, {"line_id": "2", "vat_amount": 5}]
    holed = [{"line_id": "1", "vat_amount": 10}, {"line_id": "2"}]
    order = {"session": {"order": {"vat_amount": 99}}}
    shipping = {"line_id": "s", "amount": 100, "vat_amount": 20}
    assert changed(items=full, **order).vat_amount == 15
    assert changed(items=holed).vat_amount is None
    assert changed(items=holed, **order).vat_amount == 99
    assert changed(items=holed, vat_amount=7, **order).vat_amount == 7
    assert changed(items=[]).vat_amount is None
    assert changed(items=full, shipping_option=shipping).vat_amount == 35
    assert changed(items=full, shipping_option={"line_id": "2", "vat_amount": 5}).vat_amount == 15
    assert changed(items=full, shipping_option={"line_id": "s", "amount": 100}).vat_amount is None


@pytest.mark.parametrize(
    ("given_quantity", "quantity"),
    [
        *((2, Decimal(2)), (2.5, Decimal("2.5")), (0.0004, None), (0, None), (-1, None), ("2", None), (True, None)),
        *((float("nan"), None), (float("inf"), None), (10**400, None), (1 / 3, Decimal("0.333"))),
    ],
)
def test_a_line_says_what_was_bought_and_how_much_of_it(given_quantity: object, quantity: Decimal | None) -> None:
    item = {"line_id": "1", "amount": 1, "description": " Luftboller ", "quantity": given_quantity}
    assert changed(items=[item]).lines == (Line(line_id="1", amount=1, description="Luftboller", quantity=quantity),)
    titled = changed(shipping_option={"line_id": "s", "amount": 1, "title": "Hjem"}).shipping
    assert titled == Line(line_id="s", amount=1, description="Hjem")


def test_shipping_comes_from_the_transaction_or_its_order() -> None:
    own, ordered = {"line_id": "a", "amount": 1}, {"line_id": "b", "amount": 2}
    session = {"order": {"shipping_option": ordered}}
    assert changed(shipping_option=own, session=session).shipping == Line(line_id="a", amount=1)
    assert changed(session=session).shipping == Line(line_id="b", amount=2)
    assert changed().shipping is None


def test_invoice_facts_may_stand_in_the_events() -> None:
    events = [
        event("AUTHORIZE", T1, metadata={"kravia:invoice_number": "OLD", "kravia:invoice_due_date": "2026-07-01"}),
        event("AUTHORIZE", T2, metadata={"kravia:invoice_number": "NEW", "kravia:invoice_due_date": "2026-08-01"}),
        event("AUTHORIZE", T3, metadata={"kravia:invoice_number": " ", "kravia:invoice_due_date": "soon"}),
    ]
    found = changed(metadata={"kravia:invoice_date": "2026-06-30T00:00:00Z", "kravia:kid": "0001"}, events=events)
    assert (found.invoice_number, found.invoice_url) == ("NEW", None)
    assert (found.invoice_date, found.due_date, found.payment_reference) == (
        date(2026, 6, 30),
        date(2026, 8, 1),
        "0001",
    )
    assert found.findings == ()


def test_profile_and_session_ids() -> None:
    of_session = {"id": "S", "metadata": {"session:profile_id": "P1"}}
    assert changed(session=of_session, session_id=None).session_id == "S"
    assert changed(session=of_session, metadata={"session:profile_id": "P2"}).profile_id == "P1"
    assert changed(metadata={"session:profile_id": "P2"}).profile_id == "P2"
    assert changed().profile_id is None


@pytest.mark.parametrize(
    ("more", "value"),
    [
        ({"session": {"configuration": {"kravia": {"invoice_b2b": {"invoice_channel": " Merchant "}}}}}, "merchant"),
        (
            {"session": {"configuration": {"kravia": {"invoice_b2b": {"invoice_delivery_method": "provider"}}}}},
            "kravia",
        ),
        (
            {"session": {"configuration": {"kravia": {"invoice_b2b": {"invoice_delivery_method": "merchant"}}}}},
            "merchant",
        ),
        (
            {
                "session": {
                    "configuration": {
                        "kravia": {"invoice_b2b": {"invoice_channel": "kravia", "invoice_delivery_method": "merchant"}}
                    }
                }
            },
            "kravia",
        ),
        ({"session": {"configuration": {"kravia": {"invoice_b2c": {"invoice_channel": "merchant"}}}}}, None),
        ({"session": {"payment": {"invoice_channel": "merchant"}}}, "merchant"),
        ({"payment": {"invoice_channel": "merchant"}}, "merchant"),
        (
            {
                "session": {
                    "configuration": {
                        "payment_options": [
                            7,
                            {"type": "kravia.invoice_b2c", "details": {"invoice_channel": "kravia"}},
                            {"payment_product_type": "kravia.invoice_b2b", "details": {"invoice_channel": "merchant"}},
                        ]
                    }
                }
            },
            "merchant",
        ),
        ({"session": {"configuration": {"payment_options": {"type": "kravia.invoice_b2b"}}}}, None),
        ({"session": "S"}, None),
    ],
)
def test_what_the_session_says(more: dict[str, object], value: str | None) -> None:
    found = changed(metadata={}, **more).findings
    assert found == ((ChannelFinding(level=DecidedBy.SESSION, value=value),) if value else ())


def test_the_transaction_speaks_before_its_session() -> None:
    session = {"configuration": {"kravia": {"invoice_b2b": {"invoice_channel": "kravia"}}}}
    assert [(f.level, f.value) for f in changed(session=session).findings] == [
        (DecidedBy.TRANSACTION, "merchant"),
        (DecidedBy.SESSION, "kravia"),
    ]


def test_odd_text_is_made_storable_and_long_names_survive() -> None:
    name = '"Åse", <b>{{ 7*7 }}</b>\n😀' + "x" * 500
    found = changed(
        billing_address={"first_name": name, "last_name": "a\x00b\ud800", "business_name": "  ", "country": "se"},
        customer={"country": "Norway"},
        merchant_reference="r" * 5000,
    )
    assert found.billing == Party(first_name=name, last_name="a\ufffdb\ufffd", country="SE")
    assert found.customer == Party()
    assert found.merchant_reference == "r" * 200


def test_what_is_not_needed_is_dropped() -> None:
    secret = "never-kept"
    document = {
        **copy.deepcopy(REGISTERED),
        "verified_identity": {"national_idp": secret, "name": secret},
        "customer_ip": secret,
        "user_agent": secret,
        "shipping_address": {"email": secret},
    }
    document["events"][0]["request_headers"] = {"authorization": secret}
    document["events"][1]["metadata"]["kravia:debtor_id"] = secret
    assert secret not in repr(dataclasses.asdict(parse(document)))


@pytest.mark.parametrize("document", [None, [], "x", 7, {}, {"id": ""}, {"id": 7}, {"id": None}, [REGISTERED]])
def test_what_is_no_transaction_comes_again(document: object) -> None:
    with pytest.raises(TransientFailure):
        parse(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["event", "at", "error"]), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*REGISTERED, "session", "shipping_option", "payment"]), json_values))
def test_no_document_makes_anything_but_a_transaction(changes: dict[str, object]) -> None:
    found = parse({**REGISTERED, **changes, "id": "T1"})
    assert found.id == "T1"
    text = json.dumps(dataclasses.asdict(found), default=str, ensure_ascii=False)
    assert "\x00" not in text
    text.encode()


@pytest.mark.parametrize(
    "at", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "yesterday", "", 7, "2026-13-01"]
)
def test_impossible_times_are_none(at: object) -> None:
    assert changed(created_at=at).created_at is None


def test_times_are_utc() -> None:
    for at in ("2026-07-01T12:00:00+02:00", "2026-07-01T10:00:00", "2026-07-01T10:00:00.000Z"):
        assert changed(created_at=at).created_at == D1
