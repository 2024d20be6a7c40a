"""The renderer: reads, compiles and tries all templates at start, then turns a transaction into a message."""

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import css_inline
import jinja2
from babel.numbers import list_currencies

from service.delivery import Brand, Image, Message, PermanentFailure, Purpose, Recipient, Transaction, Upcoming
from service.privacy import scrub
from service.render.errors import TemplateError
from service.render.languages import Language, language_of, read_languages
from service.render.samples import A_LINK, BARE, FULL, HERE, QUARTER, SURE, THERE, UNSURE
from service.render.text import clean, file_name, greeting_name
from service.render.version import version_of
from service.render.view import brand_view, invoice_view, purchase_view
from service.template_files import language_tag, template_folders

_DOCUMENT = "invoice"  # the name of the templates of an invoice
_CANCELLED = "cancelled"  # of those that tell that an invoice is
_NOTICE = "notice"  # of those that tell of a purchase on which invoice it will be
_PARTS = ("txt", "html", "subject")

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


@jinja2.pass_context
def _gettext(context: jinja2.runtime.Context, message: str) -> str:
    return str(context["translations"].gettext(message))


@jinja2.pass_context
def _ngettext(context: jinja2.runtime.Context, one: str, many: str, number: int) -> str:
    return str(context["translations"].ngettext(one, many, number))


def environment(folders: Sequence[Path]) -> jinja2.Environment:
    """Return Jinja as all templates are read with: strict, with gettext, HTML escaped. The first folder wins."""
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


def place_of(exc: BaseException, folders: Sequence[Path]) -> str:
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
        self._languages = read_languages(folders, fallback)
        self._brand = brand_view(brand)
        logos = ((self._brand.logo, brand.logo), (self._brand.logo_dark, brand.logo_dark))
        self._images = tuple(Image(cid=logo.cid, content=png) for logo, png in logos if logo and png)
        self._templates = self._compile(environment(folders))
        self._version = version_of(folders, brand, f"{fallback} {timezone.key}")
        self._currencies = frozenset(list_currencies()) - {"XXX", "XTS"}
        self._inliner = css_inline.CSSInliner(load_remote_stylesheets=False, keep_at_rules=True)

    def _compile(self, environment: jinja2.Environment) -> Mapping[str, jinja2.Template]:
        """Return every template by its name; raises `TemplateError` for the first that does not compile."""
        names = environment.list_templates(extensions=_PARTS)
        try:
            return {name: environment.get_template(name) for name in names}
        except jinja2.TemplateSyntaxError as exc:
            raise TemplateError(f"{place_of(exc, self._folders)}: {exc.message}") from exc
        except UnicodeDecodeError as exc:
            raise TemplateError(f"a template is not UTF-8 text: {exc}") from exc

    def check(self, folder: str, *, notices: bool = False, cancelled: bool = False) -> None:
        """Render what `folder` holds in every language, with and without optional fields; raises `TemplateError`.

        It may do without templates for notices, and for what is cancelled, unless those are to be sent.
        """
        for name in (_DOCUMENT, *(_NOTICE,) * notices, *(_CANCELLED,) * cancelled):
            if f"{folder}/{name}.txt" not in self._templates:
                raise TemplateError(f"there is no {folder}/{name}.txt among the templates")
        for language, transaction, recipient in product(self._languages.values(), (BARE, FULL), (HERE, THERE)):
            try:
                for purpose, link in product((Purpose.FIRST, Purpose.RESEND), (None, A_LINK)):
                    self._message(folder, language, transaction, purpose, recipient, link=link)
                if f"{folder}/{_CANCELLED}.txt" in self._templates:
                    self._message(folder, language, transaction, Purpose.CANCELLED, recipient)
                if f"{folder}/{_NOTICE}.txt" in self._templates:
                    for upcoming in (SURE, QUARTER, UNSURE):
                        self._notice(folder, language, transaction, upcoming, recipient)
            except _TEMPLATE_FAULTS as exc:
                raise TemplateError(f"{place_of(exc, self._folders)} ({language.tag}): {_words(exc)}") from exc

    def locale(self, transaction: Transaction) -> str:
        """Return the tag of the reader's language."""
        return self._language(transaction).tag

    def render(
        self,
        template: str,
        transaction: Transaction,
        *,
        purpose: Purpose,
        recipient: Recipient,
        link: str | None = None,
    ) -> Message:
        """Return the message in the reader's language; raises `PermanentFailure` naming what could not be rendered."""
        if not transaction.invoice_number or not clean(transaction.invoice_number):
            raise PermanentFailure("the transaction has no invoice number")
        language = self._prepared(template, _name(purpose), transaction)
        with self._faults_named(language):
            return self._message(template, language, transaction, purpose, recipient, link=link)

    def notice(self, template: str, transaction: Transaction, *, upcoming: Upcoming, recipient: Recipient) -> Message:
        """Return the notice of a purchase in the reader's language; raises as `render`."""
        language = self._prepared(template, _NOTICE, transaction)
        with self._faults_named(language):
            return self._notice(template, language, transaction, upcoming, recipient)

    def _prepared(self, template: str, name: str, transaction: Transaction) -> Language:
        """Return the language to render in; raises `PermanentFailure` for what cannot be rendered at all."""
        self._refuse_unpayable(transaction)
        if f"{template}/{name}.txt" not in self._templates:
            raise PermanentFailure(f"there is no template {template}/{name}.txt")
        return self._language(transaction)

    def _language(self, transaction: Transaction) -> Language:
        parties = (transaction.billing, transaction.customer)
        country = next((party.country for party in parties if party and party.country), None)
        return language_of(country, self._fallback, self._languages)

    @contextmanager
    def _faults_named(self, language: Language) -> Iterator[None]:
        try:
            yield
        except _TEMPLATE_FAULTS as exc:
            reason = f"cannot render {place_of(exc, self._folders)} ({language.tag}): {_words(exc)}"
            raise PermanentFailure(scrub(reason)) from exc

    def _refuse_unpayable(self, transaction: Transaction) -> None:
        if transaction.amount is None or transaction.amount <= 0:
            what = "missing" if transaction.amount is None else "not above zero"
            raise PermanentFailure(f"the transaction's amount is {what}")
        if transaction.currency not in self._currencies:
            raise PermanentFailure("the transaction's currency is missing or unknown")

    def _message(
        self,
        folder: str,
        language: Language,
        transaction: Transaction,
        purpose: Purpose,
        recipient: Recipient,
        *,
        link: str | None = None,
    ) -> Message:
        invoice = invoice_view(transaction, language.locale, self._timezone)
        document = file_name(language.translations.gettext("Invoice"), invoice.number)
        own = {"invoice": invoice, "document": document, "copy": purpose is Purpose.RESEND, "link": link}
        message = self._rendered(f"{folder}/{_name(purpose)}", language, transaction, recipient, own)
        return replace(message, document_name=document, link=link)

    def _notice(
        self, folder: str, language: Language, transaction: Transaction, upcoming: Upcoming, recipient: Recipient
    ) -> Message:
        own = {"purchase": purchase_view(transaction, upcoming, language.locale, self._timezone)}
        return self._rendered(f"{folder}/{_NOTICE}", language, transaction, recipient, own)

    def _rendered(
        self, name: str, language: Language, transaction: Transaction, recipient: Recipient, own: Mapping[str, Any]
    ) -> Message:
        """Render the parts of one message; `own` is what only its templates see."""
        view = {
            "lang": language.tag,
            "translations": language.translations,
            "brand": self._brand,
            "name": greeting_name(transaction.billing) or greeting_name(transaction.customer),
            "redirected_from": clean(recipient.redirected_from),
            **own,
        }
        subject = self._part(f"{name}.subject", view) or ""
        subject = view["subject"] = clean(subject) or ""
        text = self._part(f"{name}.txt", view) or ""
        html = self._part(f"{name}.html", view)
        return Message(
            locale=language.tag,
            subject=subject,
            text=_tidy(text),
            html=self._inliner.inline(html) if html is not None else None,
            images=self._images if html is not None else (),
            template_version=self._version,
        )

    def _part(self, name: str, view: Mapping[str, Any]) -> str | None:
        template = self._templates.get(name)
        return None if template is None else template.render(view)


def _name(purpose: Purpose) -> str:
    return _CANCELLED if purpose is Purpose.CANCELLED else _DOCUMENT


def _tidy(text: str) -> str:
    """Return plain text without the blank lines that left-out blocks leave behind."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def _words(exc: Exception) -> str:
    return f"there is no template {exc.name}" if isinstance(exc, jinja2.TemplateNotFound) else str(exc)


def open_renderer(
    *,
    brand: Brand,
    templates_dir: Path | None,
    locale: str,
    timezone: ZoneInfo,
    folders: Sequence[str] = ("mail",),
    notices: bool = False,
    cancelled: bool = False,
) -> TemplateRenderer:
    """Return a renderer whose templates (those of each channel's folder) have all been read, compiled and tried.

    `templates_dir` overrides the shipped files one by one, `locale` is the language of whoever has none of ours. With
    `notices` or `cancelled`, every folder must have templates for those, too.
    Raises `TemplateError` naming the file, the line and what is wrong.
    """
    if templates_dir is not None and not templates_dir.is_dir():
        raise TemplateError(f"DELIVERY_TEMPLATES_DIR: there is no folder {templates_dir}")
    renderer = TemplateRenderer(
        brand=brand, folders=template_folders(templates_dir), fallback=language_tag(locale), timezone=timezone
    )
    for folder in folders:
        renderer.check(folder, notices=notices, cancelled=cancelled)
    return renderer
