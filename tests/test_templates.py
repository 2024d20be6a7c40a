"""The shipped templates and catalogues: complete, tidy, as they were last looked at."""

import os
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from zoneinfo import ZoneInfo

import jinja2
import pytest
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract

from service.channels.gsm7 import is_gsm7, plain, size
from service.delivery import Brand, InvoicePage, Message, Party, Purpose, Recipient, Transaction, Upcoming
from service.render import TemplatePages, TemplateRenderer, open_pages, open_renderer
from service.render.samples import A_LINK, BARE, FULL, HERE, QUARTER, SURE, THERE, UNSURE
from service.template_files import shipped_templates
from tests.pictures import png

GOLDEN = Path(__file__).parent / "data" / "golden"
BRAND = Brand(
    name="Nordlys Møbler AS",
    organization_number="923456789",
    support_email="kundeservice@nordlys.example",
    support_phone="+47 22 12 34 56",
    website="https://www.nordlys.example/",
)
SHIPPED = sorted(shipped_templates().glob("locales/*.po"))


def renderer(brand: Brand = BRAND) -> TemplateRenderer:
    return open_renderer(brand=brand, templates_dir=None, locale="nb", timezone=ZoneInfo("Europe/Oslo"))


def rendered(
    transaction: Transaction = FULL,
    *,
    purpose: Purpose = Purpose.FIRST,
    recipient: Recipient = HERE,
    brand: Brand = BRAND,
    link: str | None = None,
    template: str = "mail",
) -> Message:
    return renderer(brand).render(template, transaction, purpose=purpose, recipient=recipient, link=link)


ENGLISH = replace(BARE, billing=Party(first_name="Kari", last_name="Nordmann", country="GB"))
GOLDEN_CASES = {
    "nb-full": (FULL, Purpose.FIRST, HERE, BRAND),
    "nb-copy-redirected": (FULL, Purpose.RESEND, THERE, BRAND),
    "en-bare": (ENGLISH, Purpose.FIRST, HERE, Brand(name="Nordlys")),
}


COUNTRIES = {"nb": "NO", "sv": "SE", "fi": "FI", "da": "DK", "en": "GB"}
CURRENCIES = {"sv": "SEK", "fi": "EUR", "da": "DKK", "en": "GBP"}
LOCALES = (*COUNTRIES, "nn")


def sold_in(locale: str, transaction: Transaction = FULL) -> Transaction:
    """Return a sample as its reader has it; nynorsk is nobody's by the country, but by LOCALE."""
    billing = replace(FULL.billing or Party(), country=COUNTRIES.get(locale))
    return replace(transaction, billing=billing, currency=CURRENCIES.get(locale, "NOK"))


@pytest.mark.parametrize("template", ["mail", "sms"])
@pytest.mark.parametrize("kind", ["attached", "linked", "copy", "cancelled"])
@pytest.mark.parametrize("locale", LOCALES)
def test_every_kind_is_in_every_language_as_it_was_last_looked_at(locale: str, kind: str, template: str) -> None:
    purposes = {"copy": Purpose.RESEND, "cancelled": Purpose.CANCELLED}
    link = A_LINK if kind == "linked" or template == "sms" else None
    message = open_renderer(
        brand=BRAND, templates_dir=None, locale=locale, timezone=ZoneInfo("Europe/Oslo"), folders=("mail", "sms")
    ).render(template, sold_in(locale), purpose=purposes.get(kind, Purpose.FIRST), recipient=HERE, link=link)
    assert message.locale == locale
    if template == "mail":
        assert message.html is not None
        assert len(message.html) < 100_000
        look(f"{locale}-{kind}", message)
    else:
        look_at(GOLDEN / f"{locale}-{kind}-sms.txt", message.text)
        assert is_gsm7(plain(message.text))
        assert kind == "cancelled" or A_LINK in message.text


@pytest.fixture(scope="module")
def pages() -> TemplatePages:
    return open_pages(brand=BRAND, templates_dir=None, locale="nb")


@pytest.mark.parametrize("locale", LOCALES)
def test_every_page_is_in_every_language_as_it_was_last_looked_at(locale: str, pages: TemplatePages) -> None:
    sold = sold_in(locale)
    assert sold.invoice_number
    assert sold.amount
    assert sold.currency
    shown = InvoicePage(
        delivery_id="",
        locale=locale,
        invoice_number=sold.invoice_number,
        amount=sold.amount,
        currency=sold.currency,
        invoice_date=sold.invoice_date,
        due_date=sold.due_date,
        payment_reference=sold.payment_reference,
        merchant_reference="order-123",
    )
    found = [
        pages.page(shown, document_url="0123456789abcdefABCDEF/invoice.pdf"),
        *(pages.expired(asked=locale, renewed=renewed) for renewed in (False, True)),
        pages.missing(asked=locale),
        pages.unavailable(asked=locale),
    ]
    assert all(f'<html lang="{locale}"' in page for page in found)
    look_at(GOLDEN / f"{locale}-pages.html", "\n".join(found[:1] + [page.partition("<body>")[2] for page in found[1:]]))


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("template", ["mail", "sms"])
def test_no_sentence_ends_twice(locale: str, template: str) -> None:
    """Danish crowns end with a full stop of their own."""
    made = open_renderer(
        brand=BRAND, templates_dir=None, locale=locale, timezone=ZoneInfo("Europe/Oslo"), folders=("mail", "sms")
    )
    for sample in (FULL, BARE):
        message = made.render(template, sold_in(locale, sample), purpose=Purpose.FIRST, recipient=HERE, link=A_LINK)
        assert ".." not in message.text


def test_a_short_norwegian_text_is_one_part() -> None:
    brand = Brand(name="Bjørns Sykkelverksted")
    sold = replace(FULL, invoice_number="10042", amount=1234550, due_date=date(2026, 11, 14))
    text = rendered(sold, brand=brand, link="https://f.eksempel.no/i/0123456789abcdefABCDEF", template="sms").text
    assert plain(text).strip() == (
        "Faktura 10042 fra Bjørns Sykkelverksted: 12 345,50 kr, forfall 14.11.2026."
        " https://f.eksempel.no/i/0123456789abcdefABCDEF"
    )
    assert size(plain(text).strip()).parts == 1


BOUGHT = replace(
    FULL,
    merchant_reference="B-2041",
    purchased_at=datetime(2026, 6, 15, 22, 30, tzinfo=UTC),
    invoice_number=None,
    invoice_date=None,
    due_date=None,
)


@pytest.mark.parametrize("locale", LOCALES)
def test_a_notice_is_in_every_language_as_it_was_last_looked_at(locale: str) -> None:
    made = open_renderer(
        brand=BRAND, templates_dir=None, locale=locale, timezone=ZoneInfo("Europe/Oslo"), folders=("mail", "sms")
    )
    look(f"{locale}-notice", made.notice("mail", sold_in(locale, BOUGHT), upcoming=SURE, recipient=HERE))
    text = made.notice("sms", sold_in(locale, BOUGHT), upcoming=SURE, recipient=HERE).text
    look_at(GOLDEN / f"{locale}-notice-sms.txt", text)
    assert is_gsm7(plain(text))


BOUGHT_IN_ENGLAND = replace(BARE, invoice_number=None, billing=Party(business_name="Smith Ltd", country="GB"))
GOLDEN_NOTICES = {
    "nb-notice-redirected": (BOUGHT, QUARTER, THERE, BRAND),
    "en-notice-bare": (BOUGHT_IN_ENGLAND, UNSURE, HERE, Brand(name="Nordlys")),
}


def told(
    upcoming: Upcoming, transaction: Transaction = BOUGHT, *, recipient: Recipient = HERE, brand: Brand = BRAND
) -> Message:
    return renderer(brand).notice("mail", transaction, upcoming=upcoming, recipient=recipient)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_the_mail_is_as_it_was_last_looked_at(name: str) -> None:
    transaction, purpose, recipient, brand = GOLDEN_CASES[name]
    look(name, rendered(transaction, purpose=purpose, recipient=recipient, brand=brand))


@pytest.mark.parametrize("name", GOLDEN_NOTICES)
def test_the_notice_is_as_it_was_last_looked_at(name: str) -> None:
    transaction, upcoming, recipient, brand = GOLDEN_NOTICES[name]
    look(name, told(upcoming, transaction, recipient=recipient, brand=brand))


def look(name: str, message: Message) -> None:
    """After a wanted change: UPDATE_GOLDEN=1, look at the pictures, read the difference."""
    assert message.html is not None
    text = f"{message.subject}\n{message.document_name}\n\n{message.text}"
    for path, found in ((GOLDEN / f"{name}.txt", text), (GOLDEN / f"{name}.html", message.html)):
        look_at(path, found)


def look_at(path: Path, found: str) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found, encoding="utf-8", newline="\n")
    assert path.read_text(encoding="utf-8") == found


@pytest.mark.parametrize(
    ("locale", "currency", "label", "asks"),
    [
        ("nb", "NOK", "KID", "Husk å oppgi KID ved betaling."),
        ("nb", "SEK", "Betalingsreferanse (OCR)", "Husk å oppgi referansen ved betaling."),
        ("nb", "EUR", "Betalingsreferanse", "Husk å oppgi referansen ved betaling."),
        ("nn", "NOK", "KID", "Hugs å oppgje KID ved betaling."),
        ("sv", "SEK", "OCR-nummer", "Ange OCR-numret när du betalar."),
        ("sv", "NOK", "Betalningsreferens (KID)", "Ange referensen när du betalar."),
        ("da", "DKK", "Betalings-id", "Husk at angive betalings-id, når du betaler."),
        ("fi", "EUR", "Viitenumero", "Käytä maksaessasi viitenumeroa."),
        ("fi", "NOK", "Maksuviite (KID)", "Käytä maksaessasi tätä viitettä."),
        ("en", "NOK", "Payment reference (KID)", "Please quote the payment reference when paying."),
    ],
)
def test_a_payment_reference_is_called_as_on_the_invoice(
    locale: str, currency: str, label: str, asks: str, pages: TemplatePages
) -> None:
    made = open_renderer(brand=BRAND, templates_dir=None, locale=locale, timezone=ZoneInfo("Europe/Oslo"))
    sold = replace(sold_in(locale), currency=currency)
    message = made.render("mail", sold, purpose=Purpose.FIRST, recipient=HERE)
    assert f"\n{label}: 0012345678903\n" in message.text
    assert f">{label}</th>" in html_of(message)
    page = InvoicePage(delivery_id="", locale=locale, invoice_number="1", amount=1, currency=currency)
    html = pages.page(replace(page, payment_reference="0012345678903"), document_url="invoice.pdf")
    assert f"<dt>{label}</dt>" in html
    for part in (message.text, html_of(message), html):
        assert asks in unescape(part)


def messages_in_templates() -> set[str]:
    found: set[str] = set()
    paths = [path for kind in ("html", "txt", "subject") for path in shipped_templates().glob(f"**/*.{kind}")]
    assert len(paths) >= 5
    for path in paths:
        with path.open("rb") as file:
            options = {"trimmed": "true", "trim_blocks": "true", "silent": "false"}
            for _, _, message, _ in babel_extract(file, ["_", "gettext"], [], options):
                found.add(str(message[0] if isinstance(message, tuple) else message))
    return found | {"Invoice"}  # the document's name, asked for by the renderer


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_catalogue_is_complete_and_holds_nothing_else(path: Path) -> None:
    with path.open("rb") as file:
        catalogue = read_po(file, abort_invalid=True)
    translated = {str(message.id) for message in catalogue if message.id and message.string and not message.fuzzy}
    assert translated == messages_in_templates()
    for message in catalogue:
        if message.id:
            assert re.findall(r"%\(\w+\)s", str(message.string)) == re.findall(r"%\(\w+\)s", str(message.id))


def test_all_nordic_languages_and_english_are_shipped() -> None:
    assert {path.stem for path in SHIPPED} == set(LOCALES)


class Reader(HTMLParser):
    """Collects what the tests ask of the markup."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def html_of(message: Message) -> str:
    assert message.html is not None
    return message.html


@pytest.mark.parametrize("upcoming", [None, SURE, UNSURE], ids=["invoice", "notice", "unsure"])
def test_the_markup_is_whole_and_can_be_read_aloud(upcoming: Upcoming | None) -> None:
    html = html_of(told(upcoming) if upcoming else rendered())
    reader = Reader(html)
    assert reader.open == []
    assert reader.all("html")[0]["lang"] == "nb"
    tables = [table for table in reader.all("table") if table.get("role") != "presentation"]
    assert len(tables) == (2 if upcoming else 1)  # the facts and the order, with a heading to every row
    assert {cell["scope"] for cell in reader.all("th")} == {"row"}
    assert len(reader.all("h1")) == 1
    article = next(tag for tag in reader.all("div") if tag.get("role") == "article")
    assert (article["lang"], article["aria-roledescription"]) == ("nb", "email")
    assert {"format-detection", "color-scheme", "supported-color-schemes", "viewport"} <= {
        str(meta.get("name")) for meta in reader.all("meta")
    }


def test_nothing_is_fetched_from_anywhere() -> None:
    html = html_of(rendered(brand=replace(BRAND, logo=PNG)))
    reader = Reader(html)
    assert [image["src"] for image in reader.all("img")] == ["cid:logo@merchant-delivery"]
    assert reader.all("script") == reader.all("link") == reader.all("iframe") == []
    assert "url(" not in html
    assert {attributes["href"] for attributes in reader.all("a")} == {
        "mailto:kundeservice@nordlys.example",
        "tel:+4722123456",
        "https://www.nordlys.example/",
    }


def test_styles_are_inlined_and_the_dark_ones_survive() -> None:
    html = html_of(rendered())
    assert "@media (prefers-color-scheme: dark)" in html
    assert re.search(r"\.card\s*\{\s*background-color: #1b1e22 !important", html)
    assert "@media only screen and (max-width: 540px)" in html
    assert "[data-ogsc] .title" in html
    assert "<!--[if mso]>" in html
    card = next(table for table in Reader(html).all("table") if "card" in str(table.get("class")))
    assert "background-color: #ffffff" in str(card["style"])
    assert len(html.encode()) < 100_000


def test_the_preview_line_has_amount_and_due_date() -> None:
    found = re.search(r'class="preheader"[^>]*>([^\u034f<]*)', html_of(rendered()))
    assert found is not None
    assert found[1].replace("&nbsp;", " ") == "12 345,50 kr, forfaller 15. juli 2026"


PNG = png(880, 96)


def test_the_logo_goes_with_the_mail_at_a_size_outlook_is_told() -> None:
    message = rendered(brand=replace(BRAND, logo=PNG))
    (logo,) = Reader(html_of(message)).all("img")
    assert (logo["width"], logo["height"], logo["alt"]) == ("220", "24", "Nordlys Møbler AS")
    assert [(image.cid, image.content) for image in message.images] == [("logo@merchant-delivery", PNG)]
    assert rendered().images == ()


def test_the_organisation_number_is_at_the_foot_and_nowhere_else() -> None:
    message = rendered()
    for part in (message.text, unescape(html_of(message))):
        assert part.count("923\u00a0456\u00a0789") == 1
    assert message.text.endswith("--\nNordlys Møbler AS\nOrg.nr. 923\u00a0456\u00a0789\n")
    assert "923" in html_of(message).partition("foot type")[2]


@pytest.mark.parametrize("name", ["invoice", "notice"])
def test_templates_extend_one_base(name: str) -> None:
    environment = jinja2.Environment(autoescape=True, extensions=["jinja2.ext.i18n"])
    for kind in ("html", "txt"):
        source = (shipped_templates() / "mail" / f"{name}.{kind}").read_text(encoding="utf-8")
        (parent,) = environment.parse(source).find_all(jinja2.nodes.Extends)
        assert parent.template == jinja2.nodes.Const(f"mail/base.{kind}")
