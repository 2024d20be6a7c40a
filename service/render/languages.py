"""The languages there are catalogues for, and which of them a reader gets."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from babel import Locale, UnknownLocaleError
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.support import Translations

from service.render.errors import TemplateError
from service.template_files import LAST, catalogues, is_translated, stand_ins

_LANGUAGES = {"NO": "nb", "SJ": "nb", "SE": "sv", "FI": "fi", "AX": "sv", "DK": "da"}  # of billing countries


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


def read_languages(folders: Sequence[Path], fallback: str) -> dict[str, Language]:
    """Return every language by its tag; a message that a catalogue lacks is taken from the next one along its chain.

    A merchant's own catalogue comes before ours of the same language, and need hold no more than its own sentences.
    """
    read = {tag: [_read_catalogue(path) for path in paths] for tag, paths in catalogues(folders).items()}
    if not is_translated(fallback, read):
        raise TemplateError(f"DELIVERY_LOCALE: there is no locales/{fallback}.po among the templates")
    languages = {}
    for tag, own in read.items():
        first, *rest = [_translations(one) for other in stand_ins(tag, fallback, read) for one in read[other]]
        for other in rest:
            first.add_fallback(other)
        languages[tag] = Language(tag=tag, locale=own[0].locale or Locale.parse(tag), translations=first)
    return languages


def _translations(catalogue: Catalog) -> Translations:
    compiled = io.BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled)


def language_of(country: str | None, fallback: str, languages: Mapping[str, Language]) -> Language:
    """Return the language of a billing country (ISO 3166-1, upper case); without a country, the merchant's own."""
    tag = _LANGUAGES.get(country, LAST) if country else fallback
    return languages[stand_ins(tag, fallback, languages)[0]]
