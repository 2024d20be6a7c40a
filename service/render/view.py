"""What a template sees of a brand and an invoice: values that are ready to be shown."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_skeleton
from babel.numbers import format_decimal

from service.delivery import Brand, Interval, Line, Transaction, Upcoming
from service.png import picture_size
from service.render.colors import edge, ink, ink_dark, on_color
from service.render.errors import TemplateError
from service.render.text import (
    clean,
    customer_reference,
    description,
    money,
    organization_number,
    reference_name,
    register,
)

_CONSUMERS = "kravia.invoice_b2c"
_ITEMS = 20  # of a purchase that are shown one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Logo:
    """The merchant's logo as it is shown: `width` and `height` in CSS pixels, `cid` its Content-ID."""

    cid: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrandView:
    """How the merchant shows itself. Every pair of colours named here meets WCAG AA (4.5:1), whatever `color` is."""

    name: str
    color: str
    on_color: str  # text on `color`
    edge: str  # a line around an area of `color` on white
    ink: str  # `color` as text on white
    ink_dark: str  # `color` as text on the dark card
    logo: Logo | None
    logo_dark: Logo | None  # instead of `logo`, where the reader's screen is dark
    organization_number: str | None
    register: str | None  # what the seller's own country calls such a number, where it can only be that country's
    support_email: str | None
    support_phone: str | None
    website: str | None  # as shown
    website_url: str | None  # as linked, always http or https


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceView:
    """One invoice, in the reader's language: dates and amounts are ready to be shown. None is not known."""

    number: str
    amount: str
    vat: str | None
    date: str | None
    order_date: str | None  # only when the invoice's own date is not known
    due_date: str | None
    due_date_short: str | None  # for texts, where every character is paid for
    payment_reference: str | None
    home: bool  # it is in the currency of the reader's country, whose own name for a payment reference fits
    reference_name: str | None  # what the invoice's country calls it, for readers of another
    customer_reference: str | None
    consumer: bool  # the invoice is for a person, not a company


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemView:
    """One line of an order; `quantity` is None for one of a thing."""

    quantity: str | None
    description: str
    amount: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseView:
    """A purchase that will be billed with others, in the reader's language. None is not known, or not sure.

    `items` and `others`, what all that is not among them comes to, add up to the amount; or there are none.
    """

    reference: str | None  # the merchant's
    amount: str
    vat: str | None
    date: str | None
    customer_reference: str | None
    period: str | None  # a month or a quarter, as people call it
    invoice_date: str | None
    items: tuple[ItemView, ...] = ()
    others: str | None = None


def brand_view(brand: Brand) -> BrandView:
    """Return the brand as it is shown; raises `TemplateError` for a colour or a logo that cannot be."""
    website = clean(brand.website)
    linked = website and (website if re.match(r"(?i)https?://", website) else f"https://{website}")
    color = brand.color.lower()
    if not re.fullmatch(r"#[0-9a-f]{6}", color):
        raise TemplateError("DELIVERY_BRAND_COLOR: must be like #1f3a5f")
    return BrandView(
        name=clean(brand.name) or "",
        color=color,
        on_color=on_color(color),
        edge=edge(color),
        ink=ink(color),
        ink_dark=ink_dark(color),
        logo=_logo(brand.logo, "logo") if brand.logo else None,
        logo_dark=_logo(brand.logo_dark, "logo-dark") if brand.logo and brand.logo_dark else None,
        organization_number=organization_number(brand.organization_number),
        register=register(brand.organization_number),
        support_email=clean(brand.support_email),
        support_phone=clean(brand.support_phone),
        website=website and re.sub(r"(?i)^https?://", "", website).rstrip("/"),
        website_url=linked,
    )


def _logo(png: bytes, name: str) -> Logo:
    """Return the size at which a PNG is shown, within 220 x 48; Outlook needs to be told."""
    try:
        width, height = picture_size(png)
    except ValueError as exc:
        raise TemplateError(f"DELIVERY_BRAND_{name.upper().replace('-', '_')}: {exc}") from exc
    scale = min(1.0, 220 / width, 48 / height)
    return Logo(
        cid=f"{name}@merchant-delivery", width=max(1, round(width * scale)), height=max(1, round(height * scale))
    )


def invoice_view(transaction: Transaction, locale: Locale, timezone: ZoneInfo) -> InvoiceView:
    """Return the invoice in the reader's language; amount and currency have been found to be usable."""
    assert transaction.amount is not None
    assert transaction.currency is not None

    def day(value: date | None) -> str | None:
        return format_date(value, "long", locale=locale) if value else None

    vat, created = transaction.vat_amount, transaction.created_at
    ordered = created.astimezone(timezone).date() if created and not transaction.invoice_date else None
    home, name = reference_name(transaction.currency, locale)
    return InvoiceView(
        number=clean(transaction.invoice_number) or "",
        amount=money(transaction.amount, transaction.currency, locale),
        vat=None if vat is None else money(vat, transaction.currency, locale),
        date=day(transaction.invoice_date),
        order_date=day(ordered),
        due_date=day(transaction.due_date),
        due_date_short=_short(transaction.due_date, locale),
        payment_reference=clean(transaction.payment_reference),
        home=home,
        reference_name=name,
        customer_reference=customer_reference(transaction.billing),
        consumer=transaction.product_type == _CONSUMERS,
    )


def _short(day: date | None, locale: Locale) -> str | None:
    """Return a day in as few characters as leave no doubt of which it is."""
    pattern = {"sv": "yyyy-MM-dd", "fi": "d.M.yyyy", "en": "d MMM yyyy"}.get(locale.language, "dd.MM.yyyy")
    return None if day is None else format_date(day, pattern, locale=locale)


def purchase_view(transaction: Transaction, upcoming: Upcoming, locale: Locale, timezone: ZoneInfo) -> PurchaseView:
    """Return the purchase in the reader's language; amount and currency have been found to be usable."""
    assert transaction.amount is not None
    assert transaction.currency is not None
    vat, at = transaction.vat_amount, transaction.purchased_at or transaction.created_at
    start, issue = upcoming.period_start, upcoming.issue
    named = "yMMMM" if upcoming.interval is Interval.MONTHLY else "yQQQQ"
    items, others = _items(transaction, locale)
    return PurchaseView(
        reference=clean(transaction.merchant_reference),
        amount=money(transaction.amount, transaction.currency, locale),
        vat=None if vat is None else money(vat, transaction.currency, locale),
        date=format_date(at.astimezone(timezone).date(), "long", locale=locale) if at else None,
        customer_reference=customer_reference(transaction.billing),
        period=format_skeleton(named, start, locale=locale) if start else None,
        invoice_date=format_date(issue, "long", locale=locale) if issue else None,
        items=items,
        others=others,
    )


def _items(transaction: Transaction, locale: Locale) -> tuple[tuple[ItemView, ...], str | None]:
    """Return the lines that can be shown, and what the rest comes to; nothing where they do not add up."""
    assert transaction.amount is not None
    assert transaction.currency is not None
    shipping = transaction.missing_shipping
    lines = transaction.lines if shipping is None else (*transaction.lines, shipping)
    priced = [(line, line.amount) for line in lines if line.amount is not None]
    if len(priced) != len(lines) or sum(amount for _, amount in priced) != transaction.amount:
        return (), None
    named = [(line, words, amount) for line, amount in priced if (words := description(line.description))][:_ITEMS]
    items = tuple(
        ItemView(
            quantity=_quantity(line, locale), description=words, amount=money(amount, transaction.currency, locale)
        )
        for line, words, amount in named
    )
    if not items or len(items) == len(lines):
        return items, None
    rest = transaction.amount - sum(amount for _, _, amount in named)
    return items, money(rest, transaction.currency, locale)


def _quantity(line: Line, locale: Locale) -> str | None:
    if line.quantity is None or line.quantity == Decimal(1):
        return None
    return str(format_decimal(line.quantity, locale=locale))
