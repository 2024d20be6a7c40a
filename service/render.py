"""Transaction to Message, through `templates/`: languages, amounts, dates, brand colours, and odd text made safe."""

import colorsys
import copy
import io
import re
import struct
import traceback
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import css_inline
import jinja2
from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.numbers import format_currency, get_currency_precision, list_currencies
from babel.support import Translations

from service.delivery import (
    Brand,
    Image,
    Message,
    Party,
    PermanentFailure,
    Purpose,
    Recipient,
    Standing,
    Transaction,
)
from service.privacy import scrub

_LANGUAGES = {"NO": "nb", "SJ": "nb", "SE": "sv", "FI": "fi", "AX": "sv", "DK": "da"}
_RELATED = {"nn": "nb", "no": "nb", "se": "nb"}  # who reads this also reads that
_LAST = "en"
_DOCUMENT = "invoice"  # the name of the templates of a single invoice
_PARTS = ("txt", "html", "subject")
_LONGEST_NAME = 100  # of a customer in the greeting, in characters

# A template is a person's own work; whatever its code stumbles over is named as its fault, not ours.
_TEMPLATE_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class TemplateError(ValueError):
    """A template, catalogue or logo cannot be used. The text names the file, the line if known, and what is wrong."""


# --- what a template sees --------------------------------------------------------------------------------------------


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
    organization_number: str | None
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
    payment_reference: str | None
    customer_reference: str | None


# --- colours ---------------------------------------------------------------------------------------------------------

_DARK_CARD = "#1b1e22"
_ENOUGH = 4.5
_MORE = 7.0  # thin type on a dark ground


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _luminance(color: str) -> float:
    """Return the relative luminance of `#rrggbb`, 0 to 1 (WCAG 2.2)."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in _channels(color)]  # noqa: PLR2004
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours `#rrggbb`, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _readable(color: str, ground: str, ratio: float) -> str:
    """Return `color` with its own hue, as much darker or lighter as it takes to be read on `ground`."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(c / 255 for c in _channels(color)))
    end = 0.0 if _luminance(ground) > 0.5 else 1.0  # noqa: PLR2004
    for step in range(51):
        rgb = colorsys.hls_to_rgb(hue, lightness + (end - lightness) * step / 50, saturation)
        shade = "#" + "".join(f"{round(c * 255):02x}" for c in rgb)
        if contrast(shade, ground) >= ratio:
            break
    return shade


# --- text ------------------------------------------------------------------------------------------------------------

# Controls, directional overrides and isolates, line and paragraph separators, lone surrogates: nothing a name needs,
# and all that could forge a header, turn a line around or make a message that cannot be encoded. Joiners stay for emoji.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]+"
)
_LINK = re.compile(r"://|\bwww\.|@", re.IGNORECASE)


def _clean(text: str | None) -> str | None:
    """Return `text` on one line without what could do harm; None when nothing is left."""
    return " ".join(_UNSAFE.sub(" ", text).split()) or None if text else None


def _greeting_name(party: Party | None) -> str | None:
    """Return who is greeted. A "name" that a mail program would turn into a link is an abuse of the order form."""
    if party is None:
        return None
    person = " ".join(name for name in (party.first_name, party.last_name) if name)
    name = _clean(party.business_name) or _clean(person)
    if name is None or _LINK.search(name):
        return None
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1].rstrip() + "…"


def _organization_number(number: str | None) -> str | None:
    """Return it as people write it: nine digits (Norway) in threes, anything else as given."""
    number = _clean(number)
    if number and re.fullmatch(r"\d{9}", number):
        return f"{number[:3]}\u00a0{number[3:6]}\u00a0{number[6:]}"
    return number


def _file_name(word: str, number: str) -> str:
    """Return an ASCII name for the document, such as `Faktura-A1B2C-000001.pdf`; channels.md 1.8 says why ASCII."""
    plain = unicodedata.normalize("NFKD", f"{word}-{number}").encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)
    stem = re.sub(r"\.{2,}", ".", stem).strip(".-_")[:80].rstrip(".-_")
    return f"{stem or 'invoice'}.pdf"


# Where Unicode's customary number of decimals is not ISO 4217's, minor units are still ISO's: these would be a hundred
# times too much (or, without the third decimal, off by a thousand).
_ISO_DIGITS = {"IQD": 3} | dict.fromkeys(
    ("AFN", "ALL", "IRR", "KPW", "LAK", "LBP", "MGA", "MMK", "RSD", "SLL", "SOS", "SYP", "YER"), 2
)


def _money(minor: int, currency: str, locale: Locale) -> str:
    digits = _ISO_DIGITS.get(currency, get_currency_precision(currency))
    pattern = copy.copy(locale.currency_formats["standard"])
    pattern.frac_prec = (digits, digits)
    amount = Decimal(minor).scaleb(-digits)
    text = format_currency(amount, currency, format=pattern, locale=locale, currency_digits=False)
    return re.sub(r"(?<=[A-Za-z])(?=\d)", "\u00a0", text)  # CLDR's currencySpacing, which Babel leaves out


# --- languages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A language there is a catalogue for. `locale` (how dates and amounts are written) is named in its header."""

    tag: str
    locale: Locale
    translations: Translations


def _read_catalogue(path: Path) -> Catalog:
    """Return the catalogue in a .po file; raises `TemplateError`. A `Language:` header wins over the file's name."""
    try:
        with path.open("rb") as file:
            catalogue = read_po(file, locale=path.stem, abort_invalid=True)
    except PoFileError as exc:
        raise TemplateError(f"{path}, line {exc.lineno}: {exc}") from exc
    except (UnknownLocaleError, ValueError, OSError) as exc:
        raise TemplateError(f"{path}: {exc}") from exc
    for message in catalogue:
        given, wanted = _placeholders(message.string), _placeholders(message.id)
        if message.id and message.string and not given <= wanted:
            unknown = ", ".join(sorted(given - wanted))
            raise TemplateError(f"{path}, line {message.lineno}: the translation uses %({unknown})s, the text does not")
    return catalogue


def _placeholders(text: str | Sequence[str] | None) -> set[str]:
    return set(re.findall(r"%\((\w+)\)", text if isinstance(text, str) else " ".join(text or ())))


def _chain(tag: str, fallback: str, known: Iterable[str]) -> list[str]:
    """Return the languages with a catalogue that stand in for `tag`, best first."""
    wanted = [tag, _RELATED.get(tag, tag), fallback, _RELATED.get(fallback, fallback), _LAST]
    return [one for one in dict.fromkeys(wanted) if one in known]


def _read_languages(folders: Sequence[Path], fallback: str) -> dict[str, Language]:
    """Return every language by its tag; a message that a catalogue lacks is taken from the next one along its chain."""
    paths = {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob("locales/*.po"))}
    catalogues = {tag: _read_catalogue(path) for tag, path in paths.items()}
    if not _chain(fallback, fallback, catalogues.keys() - {_LAST}) and fallback != _LAST:
        raise TemplateError(f"LOCALE is {fallback!r}, but there is no locales/{fallback}.po")
    languages = {}
    for tag, catalogue in catalogues.items():
        first, *rest = [_translations(catalogues[one]) for one in _chain(tag, fallback, catalogues)]
        for other in rest:
            first.add_fallback(other)
        languages[tag] = Language(tag=tag, locale=catalogue.locale or Locale.parse(tag), translations=first)
    return languages


def _translations(catalogue: Catalog) -> Translations:
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled)


# --- templates -------------------------------------------------------------------------------------------------------


@jinja2.pass_context
def _gettext(context: jinja2.runtime.Context, message: str) -> str:
    return str(context["translations"].gettext(message))


@jinja2.pass_context
def _ngettext(context: jinja2.runtime.Context, one: str, many: str, number: int) -> str:
    return str(context["translations"].ngettext(one, many, number))


def _environment(folders: Sequence[Path]) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(folder) for folder in folders]),
        autoescape=jinja2.select_autoescape(("html",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        extensions=["jinja2.ext.i18n"],
    )
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_callables(_gettext, _ngettext, newstyle=True)  # type: ignore[attr-defined]
    return environment


def shipped_templates() -> Path:
    """Return the folder of our own templates: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    packed = package / "_templates"
    return packed if packed.is_dir() else package.parent / "templates"


def _place(exc: BaseException, folders: Sequence[Path]) -> str:
    """Return in which template and line `exc` arose, as `mail/invoice.html, line 12`."""
    if isinstance(exc, jinja2.TemplateSyntaxError):
        return f"{_short(exc.filename or exc.name or '?', folders)}, line {exc.lineno}"
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(exc.__traceback__)]
    ours = [frame for frame in frames if any(Path(frame[0]).is_relative_to(folder) for folder in folders)]
    return f"{_short(ours[-1][0], folders)}, line {ours[-1][1]}" if ours else "a template"


def _short(path: str, folders: Sequence[Path]) -> str:
    shipped = folders[-1]
    return str(Path(path).relative_to(shipped)) if Path(path).is_relative_to(shipped) else path


class TemplateRenderer:
    """`Renderer` over Jinja templates, made by `open_renderer`; the same arguments give the same message."""

    def __init__(self, *, brand: Brand, folders: Sequence[Path], fallback: str, timezone: ZoneInfo) -> None:
        self._folders = folders
        self._fallback = fallback
        self._timezone = timezone
        self._languages = _read_languages(folders, fallback)
        self._brand = _brand_view(brand)
        self._images = (Image(cid=self._brand.logo.cid, content=brand.logo),) if brand.logo and self._brand.logo else ()
        self._templates = self._compile(_environment(folders))
        self._currencies = frozenset(list_currencies()) - {"XXX", "XTS"}
        self._inliner = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)

    def _compile(self, environment: jinja2.Environment) -> Mapping[str, jinja2.Template]:
        """Return every template by its name; raises `TemplateError` for the first that does not compile."""
        names = environment.list_templates(extensions=_PARTS)
        try:
            return {name: environment.get_template(name) for name in names}
        except jinja2.TemplateSyntaxError as exc:
            raise TemplateError(f"{_place(exc, self._folders)}: {exc.message}") from exc
        except UnicodeDecodeError as exc:
            raise TemplateError(f"a template is not UTF-8 text: {exc}") from exc

    def check(self, folder: str) -> None:
        """Render what `folder` holds in every language, with and without optional fields; raises `TemplateError`."""
        if f"{folder}/{_DOCUMENT}.txt" not in self._templates:
            raise TemplateError(f"there is no {folder}/{_DOCUMENT}.txt among the templates")
        here = Recipient(address="a@b.example", key="", masked="a***@b.example")
        there = Recipient(address="a@b.example", key="", masked="a***@b.example", redirected_from="c***@d.example")
        variants = product(self._languages.values(), (_BARE, _FULL), (Purpose.FIRST, Purpose.RESEND), (here, there))
        for language, transaction, purpose, recipient in variants:
            try:
                self._message(folder, language, transaction, purpose, recipient)
            except _TEMPLATE_FAULTS as exc:
                raise TemplateError(f"{_place(exc, self._folders)} ({language.tag}): {_words(exc)}") from exc

    def render(self, template: str, transaction: Transaction, *, purpose: Purpose, recipient: Recipient) -> Message:
        """Return the message in the reader's language; raises `PermanentFailure` naming what could not be rendered."""
        self._refuse_unpayable(transaction)
        if f"{template}/{_DOCUMENT}.txt" not in self._templates:
            raise PermanentFailure(f"there is no template {template}/{_DOCUMENT}.txt")
        language = self._language(transaction)
        try:
            return self._message(template, language, transaction, purpose, recipient)
        except _TEMPLATE_FAULTS as exc:
            reason = f"cannot render {_place(exc, self._folders)} ({language.tag}): {_words(exc)}"
            raise PermanentFailure(scrub(reason)) from exc

    def _refuse_unpayable(self, transaction: Transaction) -> None:
        if not transaction.invoice_number or not _clean(transaction.invoice_number):
            raise PermanentFailure("the transaction has no invoice number")
        if transaction.amount is None or transaction.amount <= 0:
            what = "missing" if transaction.amount is None else "not above zero"
            raise PermanentFailure(f"the transaction's amount is {what}")
        if transaction.currency not in self._currencies:
            raise PermanentFailure("the transaction's currency is missing or unknown")

    def _language(self, transaction: Transaction) -> Language:
        """Return the language of the billing country; without a country, the merchant's own."""
        parties = (transaction.billing, transaction.customer)
        country = next((party.country for party in parties if party and party.country), None)
        tag = _LANGUAGES.get(country, _LAST) if country else self._fallback
        return self._languages[_chain(tag, self._fallback, self._languages)[0]]

    def _message(
        self, folder: str, language: Language, transaction: Transaction, purpose: Purpose, recipient: Recipient
    ) -> Message:
        invoice = self._invoice(transaction, language.locale)
        document = _file_name(language.translations.gettext("Invoice"), invoice.number)
        view = {
            "lang": language.tag,
            "translations": language.translations,
            "brand": self._brand,
            "invoice": invoice,
            "name": _greeting_name(transaction.billing) or _greeting_name(transaction.customer),
            "document": document,
            "copy": purpose is Purpose.RESEND,
            "redirected_from": _clean(recipient.redirected_from),
        }
        subject = self._part(folder, "subject", view) or ""
        subject = view["subject"] = _clean(subject) or ""
        text = self._part(folder, "txt", view) or ""
        html = self._part(folder, "html", view)
        return Message(
            locale=language.tag,
            subject=subject,
            text=_tidy(text),
            html=self._inliner.inline(html) if html is not None else None,
            images=self._images if html is not None else (),
            document_name=document,
        )

    def _part(self, folder: str, part: str, view: Mapping[str, Any]) -> str | None:
        template = self._templates.get(f"{folder}/{_DOCUMENT}.{part}")
        return None if template is None else template.render(view)

    def _invoice(self, transaction: Transaction, locale: Locale) -> InvoiceView:
        assert transaction.amount is not None
        assert transaction.currency is not None

        def day(value: date | None) -> str | None:
            return format_date(value, "long", locale=locale) if value else None

        vat, created = transaction.vat_amount, transaction.created_at
        ordered = created.astimezone(self._timezone).date() if created and not transaction.invoice_date else None
        return InvoiceView(
            number=_clean(transaction.invoice_number) or "",
            amount=_money(transaction.amount, transaction.currency, locale),
            vat=None if vat is None else _money(vat, transaction.currency, locale),
            date=day(transaction.invoice_date),
            order_date=day(ordered),
            due_date=day(transaction.due_date),
            payment_reference=_clean(transaction.payment_reference),
            customer_reference=_clean(transaction.billing.customer_reference) if transaction.billing else None,
        )


def _tidy(text: str) -> str:
    """Return plain text without the blank lines that left-out blocks leave behind."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def _words(exc: Exception) -> str:
    return f"there is no template {exc}" if isinstance(exc, jinja2.TemplateNotFound) else str(exc)


def _brand_view(brand: Brand) -> BrandView:
    website = _clean(brand.website)
    linked = website and (website if re.match(r"(?i)https?://", website) else f"https://{website}")
    color = brand.color.lower()
    if not re.fullmatch(r"#[0-9a-f]{6}", color):
        raise TemplateError("BRAND_COLOR must be like #1f3a5f")
    return BrandView(
        name=_clean(brand.name) or "",
        color=color,
        on_color="#ffffff" if contrast(color, "#ffffff") >= _ENOUGH else "#000000",
        edge=color if contrast(color, "#ffffff") >= 1.5 else "#d5d9de",  # noqa: PLR2004
        ink=_readable(color, "#ffffff", _ENOUGH),
        ink_dark=_readable(color, _DARK_CARD, _MORE),
        logo=_logo(brand.logo) if brand.logo else None,
        organization_number=_organization_number(brand.organization_number),
        support_email=_clean(brand.support_email),
        support_phone=_clean(brand.support_phone),
        website=website and re.sub(r"(?i)^https?://", "", website).rstrip("/"),
        website_url=linked,
    )


def _logo(png: bytes) -> Logo:
    """Return the size at which a PNG is shown, within 220 x 48; Outlook needs to be told."""
    if len(png) < 24 or not png.startswith(b"\x89PNG\r\n\x1a\n"):  # noqa: PLR2004
        raise TemplateError("BRAND_LOGO is not a PNG picture")
    width, height = struct.unpack(">II", png[16:24])
    if not width or not height:
        raise TemplateError("BRAND_LOGO is a PNG picture without a size")
    scale = min(1.0, 220 / width, 48 / height)
    return Logo(cid="logo@merchant-delivery", width=max(1, round(width * scale)), height=max(1, round(height * scale)))


# --- samples, for the check at start ---------------------------------------------------------------------------------

_BARE = Transaction(
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
_FULL = Transaction(
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
)


def open_renderer(
    *, brand: Brand, templates_dir: Path | None, locale: str, timezone: ZoneInfo, folders: Sequence[str] = ("mail",)
) -> TemplateRenderer:
    """Return a renderer whose templates (those of each channel's folder) have all been read, compiled and tried.

    `templates_dir` overrides the shipped files one by one, `locale` is the language of whoever has none of ours.
    Raises `TemplateError` naming the file, the line and what is wrong.
    """
    if templates_dir is not None and not templates_dir.is_dir():
        raise TemplateError(f"TEMPLATES_DIR: there is no folder {templates_dir}")
    found = [folder.resolve() for folder in (templates_dir, shipped_templates()) if folder is not None]
    fallback = locale.replace("_", "-").split("-")[0].lower()
    renderer = TemplateRenderer(brand=brand, folders=found, fallback=fallback, timezone=timezone)
    for folder in folders:
        renderer.check(folder)
    return renderer
