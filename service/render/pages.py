"""The invoice page and its kin as HTML, through `templates/pages/`; tried at start as messages are."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import jinja2
from babel.core import negotiate_locale
from babel.dates import format_date

from service.delivery import Brand, InvoicePage
from service.render.errors import TemplateError
from service.render.languages import Language, read_languages
from service.render.renderer import environment, place_of
from service.render.text import clean, file_name, money, reference_name
from service.render.view import brand_view
from service.template_files import language_tag, stand_ins, template_folders

_SAMPLE = InvoicePage(
    delivery_id="", locale="", invoice_number="A1B2C-000001", amount=1234550, currency="NOK", due_date=date(2026, 7, 15)
)
_FULL = replace(_SAMPLE, invoice_date=date(2026, 7, 1), payment_reference="0012345678903", merchant_reference="4711")
_NAMES = ("invoice", "expired", "missing", "unavailable")
_MOST_ASKED = 20  # languages of an Accept-Language that are looked at
_PNG = "data:image/png;base64,"
_RELATED = {"no": "nb"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageView:
    """What the page of an invoice shows, in the reader's language. None is not known."""

    number: str
    amount: str
    date: str | None
    due_date: str | None
    payment_reference: str | None
    home: bool  # it is in the currency of the reader's country, whose own name for a payment reference fits
    reference_name: str | None  # what the invoice's country calls it, for readers of another
    reference: str | None


class TemplatePages:
    """`PageRenderer` over Jinja templates, made by `open_pages`."""

    def __init__(self, *, brand: Brand, folders: Sequence[Path], fallback: str) -> None:
        self._fallback = fallback
        self._folders = folders
        self._languages = read_languages(folders, fallback)
        made = environment(folders)
        try:
            self._templates = {name: made.get_template(f"pages/{name}.html") for name in _NAMES}
        except jinja2.TemplateSyntaxError as exc:
            raise TemplateError(f"{place_of(exc, folders)}: {exc.message}") from exc
        except (jinja2.TemplateNotFound, UnicodeDecodeError) as exc:
            raise TemplateError(f"pages: {exc}") from exc
        self._shared = {
            "brand": brand_view(brand),
            "logo": _data_url(brand.logo),
            "logo_dark": _data_url(brand.logo_dark),
        }

    def check(self) -> None:
        """Render every page in every language; raises `TemplateError`."""
        for tag in self._languages:
            try:
                for page in (_SAMPLE, _FULL):
                    self.page(replace(page, locale=tag), document_url="invoice.pdf")
                for renewed in (False, True):
                    self.expired(asked=tag, renewed=renewed)
                self.missing(asked=tag)
                self.unavailable(asked=tag)
            except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
                raise TemplateError(f"{place_of(exc, self._folders)} ({tag}): {exc}") from exc

    def page(self, page: InvoicePage, *, document_url: str) -> str:
        """As `PageRenderer.page`."""
        language = self._of(page)
        return self._rendered("invoice", language, invoice=_view(page, language), document_url=document_url)

    def expired(self, *, asked: str | None, renewed: bool) -> str:
        """As `PageRenderer.expired`."""
        return self._rendered("expired", self._asked(asked), renewed=renewed)

    def missing(self, *, asked: str | None) -> str:
        """As `PageRenderer.missing`."""
        return self._rendered("missing", self._asked(asked))

    def unavailable(self, *, asked: str | None) -> str:
        """As `PageRenderer.unavailable`."""
        return self._rendered("unavailable", self._asked(asked))

    def document_name(self, page: InvoicePage) -> str:
        """As `PageRenderer.document_name`."""
        word = self._of(page).translations.gettext("Invoice")
        return file_name(word, clean(page.invoice_number) or "")

    def _of(self, page: InvoicePage) -> Language:
        return self._languages[stand_ins(page.locale, self._fallback, self._languages)[0]]

    def _asked(self, asked: str | None) -> Language:
        """Return the first language that a browser asks for and there is, else the merchant's."""
        words = [word.partition(";")[0].strip() for word in (asked or "").split(",")[:_MOST_ASKED]]
        tags = [_RELATED.get(tag, tag) for word in words if (tag := language_tag(word))]
        tag = negotiate_locale(tags, list(self._languages)) or self._fallback
        return self._languages[stand_ins(tag, self._fallback, self._languages)[0]]

    def _rendered(self, name: str, language: Language, **own: Any) -> str:
        view = {"lang": language.tag, "translations": language.translations, **self._shared, **own}
        return self._templates[name].render(view)


def _data_url(png: bytes | None) -> str | None:
    return _PNG + base64.b64encode(png).decode() if png else None


def _view(page: InvoicePage, language: Language) -> PageView:
    def day(value: date | None) -> str | None:
        return format_date(value, "long", locale=language.locale) if value else None

    home, name = reference_name(page.currency, language.locale)
    return PageView(
        number=clean(page.invoice_number) or "",
        amount=money(page.amount, page.currency, language.locale),
        date=day(page.invoice_date),
        due_date=day(page.due_date),
        payment_reference=clean(page.payment_reference),
        home=home,
        reference_name=name,
        reference=clean(page.merchant_reference),
    )


def open_pages(*, brand: Brand, templates_dir: Path | None, locale: str) -> TemplatePages:
    """Return the pages, all tried; raises `TemplateError`. The arguments are those of `open_renderer`."""
    pages = TemplatePages(brand=brand, folders=template_folders(templates_dir), fallback=language_tag(locale))
    pages.check()
    return pages
