"""Languages, amounts, dates, odd text, colours, and what is wrong with a template."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.delivery import (
    Brand,
    Interval,
    Line,
    Message,
    Party,
    PermanentFailure,
    Purpose,
    Renderer,
    Transaction,
    Upcoming,
)
from service.render import TemplateError, TemplateRenderer, open_renderer
from service.render.colors import DARK_CARD, contrast, edge, ink, ink_dark, on_color
from service.render.samples import BARE, FULL, HERE, SURE, THERE, UNSURE
from service.template_files import shipped_templates
from tests.pictures import png

OSLO = ZoneInfo("Europe/Oslo")
BRAND = Brand(name="Nordlys")
NBSP = "\u00a0"


def opened(
    *, templates: Path | None = None, locale: str = "nb", brand: Brand = BRAND, timezone: ZoneInfo = OSLO
) -> TemplateRenderer:
    return open_renderer(brand=brand, templates_dir=templates, locale=locale, timezone=timezone)


@pytest.fixture(scope="module")
def renderer() -> TemplateRenderer:
    return opened()


def mail(renderer: TemplateRenderer, transaction: Transaction, purpose: Purpose = Purpose.FIRST) -> Message:
    return renderer.render("mail", transaction, purpose=purpose, recipient=HERE)


def from_country(country: str | None, transaction: Transaction = FULL) -> Transaction:
    return replace(transaction, billing=Party(country=country))


def tags(html: str) -> set[str]:
    """Return the elements that a browser would see."""
    found: set[str] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            found.add(tag)

    Reader().feed(html)
    return found


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_it_is_a_renderer(renderer: TemplateRenderer) -> None:
    fits: Renderer = renderer
    assert fits is renderer


# --- languages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("country", "locale", "expected"),
    [
        ("NO", "nb", "nb"),
        ("NO", "en", "nb"),
        ("GB", "nb", "en"),
        ("DE", "nb", "en"),
        ("SE", "nb", "sv"),
        ("SE", "en", "sv"),
        ("FI", "nb", "fi"),
        ("AX", "nb", "sv"),
        ("DK", "en", "da"),
        ("NO", "nn", "nb"),
        (None, "nb", "nb"),
        (None, "en", "en"),
        (None, "nn", "nn"),
        (None, "se", "nb"),
        (None, "nb_NO", "nb"),
    ],
)
def test_the_language_follows_the_billing_country(country: str | None, locale: str, expected: str) -> None:
    assert mail(opened(locale=locale), from_country(country)).locale == expected


def test_without_a_billing_country_the_customers_counts(renderer: TemplateRenderer) -> None:
    assert mail(renderer, replace(FULL, billing=Party(), customer=Party(country="GB"))).locale == "en"


SWEDISH = """\
msgid ""
msgstr ""
"Language: sv\\n"
"Content-Type: text/plain; charset=utf-8\\n"

msgid "Invoice"
msgstr "Faktura"

msgid "Amount due"
msgstr "Att betala"
"""


def test_a_new_language_is_a_new_file(tmp_path: Path) -> None:
    folder = write(tmp_path, {"locales/sv.po": SWEDISH})
    message = mail(opened(templates=folder), from_country("SE", replace(FULL, currency="SEK")))
    assert message.locale == "sv"
    assert f"Att betala: 12{NBSP}345,50{NBSP}kr" in message.text
    assert "15 juli 2026" in message.text
    assert "Förfallodatum" in message.text  # what it lacks comes from ours of that language, not from nowhere


def test_what_no_catalogue_of_a_language_has_comes_from_locale(tmp_path: Path) -> None:
    own = SWEDISH.replace("sv", "nb") + 'msgid "A bird"\nmsgstr "En due"\n'
    folder = write(tmp_path, {"locales/nb.po": own, "mail/invoice.txt": "{{ _('A bird') }}, {{ _('Due date') }}"})
    message = mail(opened(templates=folder), from_country("SE", replace(FULL, currency="SEK")))
    assert (message.locale, message.text) == ("sv", "En due, Förfallodatum\n")
    icelandic = write(tmp_path / "is", {"locales/is.po": SWEDISH.replace("sv", "is")})
    message = mail(opened(templates=icelandic, locale="is"), from_country(None))
    assert message.locale == "is"
    assert "Att betala" in message.text
    assert "Due date" in message.text


def test_a_catalogue_can_be_overridden(tmp_path: Path) -> None:
    folder = write(tmp_path, {"locales/nb.po": SWEDISH.replace("sv", "nb")})
    assert "Att betala" in mail(opened(templates=folder), FULL).text


def test_a_catalogue_may_be_named_by_language_and_country(tmp_path: Path) -> None:
    own = SWEDISH.replace("Language: sv", "Language: en_US").replace("Att betala", "100 %% to pay")
    folder = write(tmp_path, {"locales/en_US.po": f"\ufeff{own}"})
    message = mail(opened(templates=folder), from_country("GB"))
    assert message.locale == "en"
    assert f"100 % to pay: NOK{NBSP}12,345.50" in message.text
    assert "July 15, 2026" in message.text
    assert "Invoice number" in message.text


def test_a_catalogue_of_ones_own_need_hold_no_more_than_its_own_sentences(tmp_path: Path) -> None:
    own = SWEDISH.partition('msgid "Invoice"')[0].replace("sv", "nb") + 'msgid "A bird"\nmsgstr "En due"\n'
    files = {"locales/nb.po": own, "mail/invoice.subject": "{{ _('A bird') }}"}
    message, shipped = mail(opened(templates=write(tmp_path, files)), FULL), mail(opened(), FULL)
    assert message.subject == "En due"
    assert message.text.splitlines()[4:] == shipped.text.splitlines()[4:]
    assert "Forfallsdato" in message.text


def test_a_locale_that_nobody_has_translated_is_found_at_start() -> None:
    with pytest.raises(TemplateError, match=r"DELIVERY_LOCALE: there is no locales/fr\.po"):
        opened(locale="fr")


# --- amounts and dates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "currency", "country", "expected"),
    [
        (1, "NOK", "NO", "0,01 kr"),
        (1234550, "NOK", "NO", "12 345,50 kr"),
        (1234550, "EUR", "NO", "12 345,50 €"),
        (1234550, "NOK", "GB", "NOK 12,345.50"),
        (1234550, "NOK", "SE", "12 345,50 NOK"),
        (1234550, "DKK", "SE", "12 345,50 DKK"),
        (1234550, "SEK", "SE", "12 345,50 kr"),
        (1234550, "DKK", "DK", "12.345,50 kr."),
        (1234550, "GBP", "GB", "£12,345.50"),
        (12345, "JPY", "NO", "12 345 JPY"),
        (12345, "ISK", "NO", "12 345 ISK"),
        (1234567, "KWD", "NO", "1 234,567 KWD"),
        (1234567, "RSD", "NO", "12 345,67 RSD"),
        (1234567, "IQD", "NO", "1 234,567 IQD"),
        (9007199254740993, "NOK", "NO", "90 071 992 547 409,93 kr"),
    ],
)
def test_amounts(renderer: TemplateRenderer, amount: int, currency: str, country: str, expected: str) -> None:
    message = mail(renderer, from_country(country, replace(BARE, amount=amount, currency=currency)))
    assert expected in message.text.replace(NBSP, " ")
    assert message.html is not None
    assert expected in unescape(message.html).replace(NBSP, " ")


@pytest.mark.parametrize(
    ("amount", "currency", "words"),
    [
        (None, "NOK", "amount is missing"),
        (0, "NOK", "not above zero"),
        (-1, "NOK", "not above zero"),
        (1, None, "currency"),
        (1, "ZZZ", "currency"),
        (1, "nok", "currency"),
        (1, "", "currency"),
        (10**30 + 1, "NOK", "cannot render"),
    ],
)
def test_what_cannot_be_paid_is_not_written(
    renderer: TemplateRenderer, amount: int | None, currency: str | None, words: str
) -> None:
    with pytest.raises(PermanentFailure, match=words):
        mail(renderer, replace(FULL, amount=amount, currency=currency))


@pytest.mark.parametrize("number", [None, "", " \u202e"])
def test_no_invoice_number_no_mail(renderer: TemplateRenderer, number: str | None) -> None:
    with pytest.raises(PermanentFailure, match="no invoice number"):
        mail(renderer, replace(FULL, invoice_number=number))


def test_dates_are_dates_and_the_order_date_is_the_merchants(renderer: TemplateRenderer) -> None:
    assert "Fakturadato: 1. juli 2026" in mail(renderer, FULL).text
    late = replace(FULL, invoice_date=None, created_at=datetime(2026, 6, 30, 23, 30, tzinfo=UTC))
    assert "Bestillingsdato: 1. juli 2026" in mail(renderer, late).text
    assert "Bestillingsdato: 30. juni 2026" in mail(opened(timezone=ZoneInfo("UTC")), late).text
    assert "dato" not in mail(renderer, replace(late, created_at=None, due_date=None)).text


def test_optional_facts_are_shown_only_where_they_are_known(renderer: TemplateRenderer) -> None:
    labels = ("Forfallsdato", "KID", "Herav mva.", "Deres referanse", "Fakturadato")
    full, bare = mail(renderer, FULL), mail(renderer, BARE)
    for label in labels:
        assert label in full.text
        assert label in str(full.html)
        assert label not in bare.text
        assert label not in str(bare.html)
    assert (full.subject, bare.subject) == (
        "Faktura A1B2C-000001 fra Nordlys, forfaller 15. juli 2026",
        "Faktura A1B2C-000001 fra Nordlys",
    )
    assert "0,00" in mail(renderer, replace(BARE, vat_amount=0)).text


# --- copies and tests ------------------------------------------------------------------------------------------------


def test_a_copy_says_so_and_a_repeat_does_not(renderer: TemplateRenderer) -> None:
    assert mail(renderer, FULL, Purpose.REPEAT) == mail(renderer, FULL)
    copy = mail(renderer, FULL, Purpose.RESEND)
    assert copy.subject == "Kopi: Faktura A1B2C-000001 fra Nordlys, forfaller 15. juli 2026"
    assert "Dette er en kopi" in copy.text
    assert "Kopi av faktura" in str(copy.html)


def test_a_redirected_mail_says_whom_it_would_have_reached(renderer: TemplateRenderer) -> None:
    message = renderer.render("mail", from_country("GB"), purpose=Purpose.FIRST, recipient=THERE)
    words = "Test: this would have gone to k***@nordmann.example"
    assert message.subject.startswith("[Test] Invoice")
    assert message.text.startswith(f"*** {words} ***\n")
    assert words in str(message.html)
    assert "Test" not in str(mail(renderer, from_country("GB")).html)


# --- odd text --------------------------------------------------------------------------------------------------------

ODD = (
    '"Ola, O\'Hara" & <b onclick=x>Søn</b> {{ 7*7 }} {% raw %} %(name)s 👩‍🚀\r\nBcc: x@y.example\u202e\0\u2028'
    + "W" * 500
)


def odd(transaction: Transaction, text: str) -> Transaction:
    return replace(
        transaction,
        invoice_number=text,
        payment_reference=text,
        billing=Party(business_name=text, country="NO", customer_reference=text),
    )


def test_odd_text_is_shown_as_text(renderer: TemplateRenderer) -> None:
    message = mail(renderer, odd(FULL, ODD))
    html = str(message.html)
    assert "<b onclick" not in html
    assert "{{ 7*7 }}" in html
    assert "{% raw %} %(name)s 👩‍🚀 Bcc: x@y.example" in unescape(html)
    assert "49" not in message.subject
    assert "\n" not in message.subject
    for text in (message.subject, message.text, html):
        assert not set(text) & {"\0", "\r", "\u202e", "\u2028"}
    assert message.document_name.isascii()
    assert len(message.document_name) <= 90


@settings(deadline=None, max_examples=60)
@given(text=st.text(min_size=1, max_size=300))
def test_any_text_can_be_rendered_and_encoded(renderer: TemplateRenderer, text: str) -> None:
    try:
        message = mail(renderer, odd(BARE, text))
    except PermanentFailure as exc:
        assert exc.reason == "the transaction has no invoice number"  # noqa: PT017
        return
    for part in (message.subject, message.text, str(message.html)):
        part.encode("utf-8")
    assert len(message.subject.splitlines()) == 1
    assert tags(str(message.html)) == tags(str(mail(renderer, odd(BARE, "plain")).html))


@pytest.mark.parametrize(
    ("party", "greeting"),
    [
        (Party(first_name="Ola", last_name="Nordmann"), "Hei, Ola Nordmann"),
        (Party(first_name="Ola"), "Hei, Ola"),
        (Party(first_name="Ola", business_name="Nordmann AS"), "Hei, Nordmann AS"),
        (Party(), "Hei"),
        (None, "Hei"),
        (Party(first_name=" \n"), "Hei"),
        (Party(first_name="You won! http://bad.example"), "Hei"),
        (Party(first_name="see www.bad.example"), "Hei"),
        (Party(first_name="mail me@bad.example"), "Hei"),
        (Party(first_name="evil.example/vinn"), "Hei"),
        (Party(first_name="Vinn", last_name="på evil.example"), "Hei"),
        (Party(business_name="bit\u3002ly/x"), "Hei"),
        (Party(business_name="тест.рф"), "Hei"),
        (Party(business_name="evil.xn--p1ai"), "Hei"),
        (Party(business_name="10.1.2.3/vinn"), "Hei"),
        (Party(business_name="tel:+4740000001"), "Hei"),
        (Party(business_name="J. R. Hansen A.S."), "Hei, J. R. Hansen A.S."),
        (Party(business_name="St. Hansen & Co. 1.2"), "Hei, St. Hansen & Co. 1.2"),
        (Party(business_name="N" * 500), "Hei, " + "N" * 99 + "…"),
    ],
)
def test_the_greeting(renderer: TemplateRenderer, party: Party | None, greeting: str) -> None:
    assert mail(renderer, replace(BARE, billing=party)).text.split("\n")[0] == greeting


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("PO 4711 / v. 2.1", "PO 4711 / v. 2.1"),
        ("evil.example/vinn-en-million", None),
        ("https://evil.example", None),
        ("me@evil.example", None),
        ("www.evil", None),
        ("P" * 500, "P" * 79 + "…"),
        ("P" * 80, "P" * 80),
        (" \n", None),
    ],
)
def test_the_customers_own_reference_is_bounded_and_no_link(
    renderer: TemplateRenderer, reference: str, shown: str | None
) -> None:
    message = mail(renderer, replace(FULL, billing=Party(country="NO", customer_reference=reference)))
    found = [line for line in message.text.splitlines() if line.startswith("Deres referanse")]
    assert found == ([f"Deres referanse: {shown}"] if shown else [])
    assert ("Deres referanse" in str(message.html)) is bool(shown)
    assert "evil" not in message.text + str(message.html)


@pytest.mark.parametrize(
    ("product", "label"),
    [
        ("kravia.invoice_b2b", "Deres referanse"),
        ("kravia.invoice_b2b_grouped", "Deres referanse"),
        ("kravia.invoice_b2c", "Din referanse"),
    ],
)
def test_a_person_is_not_addressed_as_a_company(renderer: TemplateRenderer, product: str, label: str) -> None:
    message = mail(renderer, replace(FULL, product_type=product))
    assert f"\n{label}: PO 4711\n" in message.text
    assert label in str(message.html)
    assert "Your reference: PO 4711" in mail(renderer, from_gb(product)).text


def from_gb(product: str) -> Transaction:
    return replace(FULL, product_type=product, billing=Party(country="GB", customer_reference="PO 4711"))


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("A1B2C-000001", "Faktura-A1B2C-000001.pdf"),
        ("../../etc/passwd", "Faktura-.-.-etc-passwd.pdf"),
        ('a"b;c\\d', "Faktura-a-b-c-d.pdf"),
        ("Å-1/é", "Faktura-A-1-e.pdf"),
        ("中文", "Faktura.pdf"),
    ],
)
def test_the_documents_name_is_safe_everywhere(renderer: TemplateRenderer, number: str, name: str) -> None:
    assert mail(renderer, replace(BARE, invoice_number=number)).document_name == name


# --- brand -----------------------------------------------------------------------------------------------------------


@given(rgb=st.integers(0, 0xFFFFFF))
def test_every_pair_of_colours_can_be_read(rgb: int) -> None:
    color = f"#{rgb:06x}"
    assert contrast(color, on_color(color)) >= 4.5
    assert contrast(ink(color), "#ffffff") >= 4.5
    assert contrast(ink_dark(color), DARK_CARD) >= 4.5
    assert contrast(edge(color), "#ffffff") >= 1.4


def test_contrast_is_the_published_one() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_the_brand_is_shown_and_cannot_inject() -> None:
    brand = Brand(
        name='Nord & Sønn "AS" <i>',
        color="#FFE9A8",
        organization_number="923456789",
        website="javascript:alert(1)",
        support_phone="+47 22",
    )
    message = mail(opened(brand=brand), FULL)
    html = str(message.html)
    assert 'Nord & Sønn "AS" <i>' in message.subject
    assert "i" not in tags(html)  # a "<" inside an attribute is text
    assert 'href="javascript' not in html
    assert "923\u00a0456\u00a0789" in message.text
    assert "color: #000000" in html


@pytest.mark.parametrize(
    ("number", "country", "shown"),
    [
        ("923456789", "DK", "Org.nr. 923\u00a0456\u00a0789"),
        ("923456789", "FI", "Rekisterinumero 923\u00a0456\u00a0789"),
        ("556036-0793", "SE", "Org.nr 556036-0793"),
        ("12345678", "DK", "CVR-nr. 12345678"),
        ("DK12345678", "SE", "CVR-nr. DK12345678"),
        ("1234567-8", "FI", "Y-tunnus 1234567-8"),
        ("1234567-8", "GB", "Y-tunnus 1234567-8"),
        ("FC12345678", "GB", "Org. no. FC12345678"),
    ],
)
def test_the_sellers_number_is_called_what_its_country_calls_it(number: str, country: str, shown: str) -> None:
    message = mail(opened(brand=replace(BRAND, organization_number=number)), from_country(country))
    assert message.text.endswith(f"\n{shown}\n")
    assert f"&middot; {shown}" in str(message.html).replace("&nbsp;", "\u00a0").replace("·", "&middot;")


@pytest.mark.parametrize("logo", [b"GIF89a", png(1, 1)[:8], png(1, 1)[:33], png(0, 1), png(5001, 1)])
def test_a_logo_that_is_no_picture_is_found_at_start(logo: bytes) -> None:
    with pytest.raises(TemplateError, match="DELIVERY_BRAND_LOGO: must be"):
        opened(brand=replace(BRAND, logo=logo))
    with pytest.raises(TemplateError, match="DELIVERY_BRAND_LOGO_DARK: must be"):
        opened(brand=replace(BRAND, logo=png(1, 1), logo_dark=logo))


def test_a_colour_that_is_none_is_found_at_start() -> None:
    with pytest.raises(TemplateError, match="DELIVERY_BRAND_COLOR: must be"):
        opened(brand=replace(BRAND, color="red; background: url(x)"))


# --- what is wrong with a template -----------------------------------------------------------------------------------


def test_a_file_of_ones_own_replaces_one_of_ours(tmp_path: Path) -> None:
    folder = write(tmp_path, {"mail/invoice.subject": "Regning {{ invoice.number }}"})
    message = mail(opened(templates=folder), FULL)
    assert message.subject == "Regning A1B2C-000001"
    assert message.text == mail(opened(), FULL).text


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mail/invoice.txt", "a\n{% if %}", r"mail/invoice\.txt, line 2: Expected an expression"),
        ("mail/base.html", "<p>\n\n{% endif %}", r"mail/base\.html, line 3"),
        ("mail/invoice.subject", "{{ invoice.nubmer }}", r"mail/invoice\.subject, line 1 .*nubmer"),
        (
            "mail/invoice.txt",
            "\n{% if copy %}\n{{ who }}{% endif %}",
            r"mail/invoice\.txt, line 3 .*'who' is undefined",
        ),
        ("mail/invoice.txt", "{% if redirected_from %}{{ who }}{% endif %}", "'who' is undefined"),
        ("mail/invoice.html", "{% if not invoice.due_date %}{{ who }}{% endif %}", "'who' is undefined"),
        (
            "mail/invoice.html",
            '{% extends "mail/bse.html" %}',
            r"mail/invoice\.html, line 1 .*no template mail/bse\.html",
        ),
        ("mail/invoice.txt", "{{ 1 / 0 }}", r"mail/invoice\.txt, line 1 .*division by zero"),
        ("mail/other.txt", "{{", r"mail/other\.txt, line 1"),
        ("locales/nb.po", 'msgid "a"\nnonsense\n', r"locales/nb\.po, line \d"),
        ("locales/nb.po", "nonsense\n", r"locales/nb\.po, line 1: Unknown or misformatted keyword$"),
        ("locales/nb.po", 'msgid "a"\nmsgstr "Gjenst', r"locales/nb\.po, line 2: the closing quote is missing"),
        ("locales/nb.po", 'msgid "a"\nmsgstr "100 % betalt"\n', r"locales/nb\.po, line 1: a % is written %%"),
        ("locales/nb.po", 'msgid "%(a)s b"\nmsgstr "%(a) b"\n', r"locales/nb\.po, line 1: a % is written %%"),
        ("locales/nb.po", SWEDISH, r"locales/nb\.po: by its name it is in nb, and by its header, Language: sv, not"),
        ("locales/xx-yy.po", 'msgid "a"\nmsgstr "b"\n', r"locales/xx-yy\.po"),
        (
            "locales/nb.po",
            'msgid "Dear %(name)s,"\nmsgstr "Hei, %(navn)s"\n',
            r"locales/nb\.po, line 1: .*%\(navn\)s",
        ),
    ],
)
def test_a_wrong_template_is_found_at_start(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        opened(templates=write(tmp_path, {name: text}))


def test_a_template_that_is_not_text_is_found_at_start(tmp_path: Path) -> None:
    write(tmp_path, {"mail/invoice.txt": ""})
    (tmp_path / "mail" / "invoice.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(TemplateError, match="not UTF-8"):
        opened(templates=tmp_path)


def test_a_folder_that_is_not_there_is_found_at_start(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="DELIVERY_TEMPLATES_DIR: there"):
        opened(templates=tmp_path / "gone")


def test_a_channel_without_templates_is_found_at_start() -> None:
    with pytest.raises(TemplateError, match=r"no fax/invoice\.txt"):
        open_renderer(brand=BRAND, templates_dir=None, locale="nb", timezone=OSLO, folders=("mail", "fax"))


def test_a_channel_of_ones_own_brings_its_templates(tmp_path: Path) -> None:
    folder = write(tmp_path, {"pager/invoice.txt": "{{ invoice.amount }}"})
    renderer = open_renderer(brand=BRAND, templates_dir=folder, locale="nb", timezone=OSLO, folders=("pager",))
    message = renderer.render("pager", FULL, purpose=Purpose.FIRST, recipient=HERE)
    assert (message.text, message.html, message.subject) == (f"12{NBSP}345,50{NBSP}kr\n", None, "")


HIDDEN: list[tuple[str, Callable[[Transaction], Transaction]]] = [
    ("{% if invoice.number == 'B' %}{{ who }}{% endif %}", lambda one: replace(one, invoice_number="B")),
    ("{{ 1 / (invoice.number|length - 1) }}", lambda one: replace(one, invoice_number="B")),
]


@pytest.mark.parametrize(("text", "change"), HIDDEN)
def test_what_only_one_invoice_meets_fails_that_invoice_alone(
    tmp_path: Path, text: str, change: Callable[[Transaction], Transaction]
) -> None:
    renderer = opened(templates=write(tmp_path, {"mail/invoice.txt": text}))
    with pytest.raises(PermanentFailure, match=r"cannot render .*mail/invoice\.txt, line 1"):
        mail(renderer, change(FULL))
    assert mail(renderer, FULL).locale == "nb"


def test_an_unknown_folder_fails_the_delivery(renderer: TemplateRenderer) -> None:
    with pytest.raises(PermanentFailure, match=r"no template fax/invoice\.txt"):
        renderer.render("fax", FULL, purpose=Purpose.FIRST, recipient=HERE)


def test_the_same_arguments_give_the_same_message() -> None:
    assert mail(opened(), FULL) == mail(opened(), replace(FULL, read_at=datetime(2030, 1, 1, tzinfo=UTC)))
    assert mail(opened(), FULL) != mail(opened(), replace(FULL, due_date=date(2026, 7, 16)))


def version(renderer: TemplateRenderer) -> str:
    return mail(renderer, FULL).template_version


def test_the_version_tells_whatever_a_mail_is_rendered_from(tmp_path: Path, renderer: TemplateRenderer) -> None:
    """The same files and brand give the same version, in any process; whatever differs gives another."""
    first = version(renderer)
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    assert version(opened()) == first
    catalogue = (shipped_templates() / "locales" / "nb.po").read_text()
    text = (shipped_templates() / "mail" / "invoice.txt").read_text()
    others = [
        opened(brand=replace(BRAND, name="Another AS")),
        opened(brand=replace(BRAND, logo=png(2, 2))),
        opened(locale="en"),
        opened(templates=write(tmp_path / "a", {"mail/invoice.txt": text + "\nBye"})),
        opened(templates=write(tmp_path / "b", {"mail/part.css": "p {}"})),
        opened(templates=write(tmp_path / "c", {"locales/nb.po": catalogue.replace("Betal", "Betall")})),
    ]
    assert len({first, *map(version, others)}) == len(others) + 1
    same = opened(templates=write(tmp_path / "d", {"mail/invoice.txt": text, ".git/config": "hidden"}))
    assert version(same) == first


# --- the notice of a purchase ----------------------------------------------------------------------------------------


def notice(renderer: TemplateRenderer, upcoming: Upcoming, transaction: Transaction = FULL) -> str:
    """Return all that the reader sees of a notice."""
    message = renderer.notice("mail", transaction, upcoming=upcoming, recipient=HERE)
    return f"{message.subject}\n{message.text}\n{unescape(message.html or '')}"


@pytest.mark.parametrize(
    ("country", "upcoming", "words"),
    [
        ("NO", SURE, ["fakturaen datert 1. juli 2026", "juni 2026", "ingenting å betale nå"]),
        ("GB", SURE, ["invoice of 1 July 2026", "June 2026", "nothing to pay now"]),
        ("NO", replace(SURE, issue=None, interval=Interval.QUARTERLY), ["neste faktura", "2. kvartal 2026"]),
        ("GB", replace(SURE, issue=None, interval=Interval.QUARTERLY), ["next invoice", "2nd quarter 2026"]),
    ],
)
def test_a_notice_says_on_which_invoice_a_purchase_will_be(
    renderer: TemplateRenderer, country: str, upcoming: Upcoming, words: list[str]
) -> None:
    transaction = replace(FULL, billing=Party(country=country), merchant_reference="B-2041", invoice_number=None)
    shown = notice(renderer, upcoming, transaction)
    assert [word for word in [*words, "B-2041", "345"] if word not in shown] == []


def test_a_notice_names_no_date_and_no_period_that_is_not_sure(renderer: TemplateRenderer) -> None:
    shown = notice(renderer, UNSURE, replace(BARE, created_at=None))
    assert "neste faktura" in shown
    assert not re.search(r"\b20[0-9]{2}\b|Fakturaperiode|Fakturadato", shown)


def a_line(number: int, amount: int | None = 1000, description: str | None = "Stol", **more: Any) -> Line:
    return Line(line_id=str(number), amount=amount, description=description, **more)


@pytest.mark.parametrize(
    ("lines", "shipping", "shown"),
    [
        ((a_line(1), a_line(2, 500, "Bord", quantity=Decimal(2))), None, ["Stol: 10,00 kr", "2 \u00d7 Bord: 5,00 kr"]),
        ((a_line(1, 1400, quantity=Decimal(1)),), a_line(9, 100, "Frakt"), ["Stol: 14,00 kr", "Frakt: 1,00 kr"]),
        ((a_line(1, 1600), a_line(2, -100, "Rabatt")), None, ["Stol: 16,00 kr", "Rabatt: -1,00 kr"]),
        ((a_line(1), a_line(2, 300, None), a_line(3, 200, "vinn.example")), None, ["Stol: 10,00 kr", "Annet: 5,00 kr"]),
        ((a_line(1),), None, []),  # they do not add up
        ((a_line(1, 1500), a_line(2, None)), None, []),
        ((a_line(1, 1500, "www.vinn.example"),), None, []),
        ((), None, []),
    ],
)
def test_a_notice_lists_what_was_bought_where_it_adds_up(
    renderer: TemplateRenderer, lines: tuple[Line, ...], shipping: Line | None, shown: list[str]
) -> None:
    bought = replace(FULL, amount=1500, lines=lines, shipping=shipping)
    message = renderer.notice("mail", bought, upcoming=SURE, recipient=HERE)
    listed = [line[2:].replace("\xa0", " ") for line in message.text.splitlines() if line.startswith("- ")]
    assert listed == shown
    assert ("Bestillingen" in message.text) == ("Bestillingen" in (message.html or "")) == bool(shown)


def test_a_long_order_is_cut_and_its_sum_kept(renderer: TemplateRenderer) -> None:
    lines = tuple(a_line(number, description=f"{number} " + "x" * 500) for number in range(1000))
    message = renderer.notice(
        "mail", replace(FULL, amount=1_000_000, lines=lines, shipping=None), upcoming=SURE, recipient=HERE
    )
    listed = [line for line in message.text.replace("\xa0", " ").splitlines() if line.startswith("- ")]
    assert len(listed) == 21
    assert listed[-1] == "- Annet: 9 800,00 kr"
    assert max(map(len, listed)) < 100
    assert len((message.html or "").encode()) < 100_000


def test_what_a_notice_cannot_be_rendered_from_is_named(renderer: TemplateRenderer) -> None:
    with pytest.raises(PermanentFailure, match="amount is missing"):
        notice(renderer, SURE, replace(FULL, amount=None))
    with pytest.raises(PermanentFailure, match=r"there is no template pager/notice\.txt"):
        renderer.notice("pager", FULL, upcoming=SURE, recipient=HERE)


def test_odd_references_do_no_harm_in_a_notice(renderer: TemplateRenderer) -> None:
    shown = renderer.notice(
        "mail", replace(FULL, merchant_reference="<b>x\r\nBcc: y</b>"), upcoming=SURE, recipient=HERE
    )
    assert "Bcc: y</b>" not in (shown.html or "")
    assert "<b>x Bcc: y</b>" in shown.text


def test_notices_are_tried_at_start_where_they_are_and_wanted_where_they_are_sent(tmp_path: Path) -> None:
    files = {"fax/invoice.txt": "{{ invoice.number }}", "mail/notice.txt": "{{ purchase.sum }}"}
    templates = write(tmp_path, files)
    with pytest.raises(TemplateError, match=r"mail/notice\.txt, line 1"):
        opened(templates=templates)
    (templates / "mail" / "notice.txt").unlink()
    by_text = {"brand": BRAND, "templates_dir": templates, "locale": "nb", "timezone": OSLO, "folders": ("fax",)}
    open_renderer(**by_text)  # type: ignore[arg-type]
    with pytest.raises(TemplateError, match=r"there is no fax/notice\.txt among the templates"):
        open_renderer(**by_text, notices=True)  # type: ignore[arg-type]
