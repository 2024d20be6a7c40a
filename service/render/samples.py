"""Transactions with and without optional fields, for trying the templates at start."""

from datetime import UTC, date, datetime
from decimal import Decimal

from service.delivery import Interval, Line, Party, Recipient, Standing, Transaction, Upcoming

BARE = Transaction(
    id="T00000000.sample",
    standing=Standing.AUTHORIZED,
    status="AUTHORIZED",
    product="kravia",
    product_type="kravia.invoice_b2c",
    amount=50000,
    currency="NOK",
    read_at=datetime(2026, 7, 1, tzinfo=UTC),
    invoice_number="A1B2C-000001",
)
FULL = Transaction(
    id="T00000000.sample",
    standing=Standing.AUTHORIZED,
    status="AUTHORIZED",
    product="kravia",
    product_type="kravia.invoice_b2b",
    amount=1234550,
    currency="NOK",
    read_at=datetime(2026, 7, 1, tzinfo=UTC),
    vat_amount=246910,
    created_at=datetime(2026, 6, 30, 23, 30, tzinfo=UTC),
    invoice_number="A1B2C-000001",
    invoice_date=date(2026, 7, 1),
    due_date=date(2026, 7, 15),
    payment_reference="0012345678903",
    billing=Party(business_name="Eksempel AS", country="NO", customer_reference="PO 4711"),
    lines=(
        Line(line_id="1", amount=1039600, description="Stol «Ørnes», eik", quantity=Decimal(4)),
        Line(line_id="2", amount=149750, description="Ullpledd, grått", quantity=Decimal("2.5")),
        Line(line_id="3", amount=25200, description=None),
    ),
    shipping=Line(line_id="frakt", amount=20000, description="Frakt med innbæring"),
)

SURE = Upcoming(interval=Interval.MONTHLY, period_start=date(2026, 6, 1), issue=date(2026, 7, 1))
QUARTER = Upcoming(interval=Interval.QUARTERLY, period_start=date(2026, 4, 1), issue=None)
UNSURE = Upcoming(interval=Interval.MONTHLY, period_start=None, issue=None)

A_LINK = "https://f.eksempel.example/i/0123456789abcdefABCDEF"

HERE = Recipient(address="kari@nordmann.example", key="", masked="k***@nordmann.example")
THERE = Recipient(
    address="test@nordmann.example",
    key="",
    masked="t***@nordmann.example",
    redirected_from="k***@nordmann.example",
)
