"""The languages there are catalogues for, and which of them a reader gets."""

import codecs
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from babel import Locale, UnknownLocaleError
from babel.messages.catalog import Catalog
from babel.messages.catalog import Message as BabelMessage
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from babel.support import Translations

from service.render.errors import TemplateError
from service.template_files import LAST, catalogues, is_translated, language_tag, stand_ins

_LANGUAGES = {"NO": "nb", "SJ": "nb", "SE": "sv", "FI": "fi", "AX": "sv", "DK": "da"}  # of billing countries


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A language there is a catalogue for. `locale` (how dates and amounts are written) is named in its header."""

    tag: str
    locale: Locale
    translations: Translations


def _read_catalogue(path: Path) -> Catalog:
    """Return the catalogue in a .po file; raises `TemplateError`. A `Language:` header such as en_GB is its locale."""
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
        catalogue = read_po(lines, locale=Locale.parse(path.stem.replace("-", "_")), abort_invalid=True)
    except PoFileError as exc:
        raise TemplateError(f"{path}, line {exc.lineno + 1}: {str(exc).rpartition(' on ')[0]}") from exc
    except (UnknownLocaleError, ValueError, OSError) as exc:
        raise TemplateError(f"{path}: {exc}") from exc
    for number, line in enumerate(map(bytes.strip, lines), start=1):  # Babel takes any last letter for the quote
        if line and not line.startswith(b"#") and not line.endswith(b'"'):
            raise TemplateError(f"{path}, line {number}: the closing quote is missing")
    _speaks(catalogue, path)
    for message in catalogue:
        if message.id and message.string:
            _fits(message, path)
    return catalogue


def _speaks(catalogue: Catalog, path: Path) -> None:
    """Refuse a header of another language than the file's name: the dates and amounts would be in that one."""
    tag, said = language_tag(path.stem), catalogue.locale.language if catalogue.locale else language_tag(path.stem)
    if not is_translated(tag, {said}) and not is_translated(said, {tag}):
        raise TemplateError(f"{path}: by its name it is in {tag}, and by its header, Language: {catalogue.locale}, not")


def _fits(message: BabelMessage, path: Path) -> None:
    """Refuse a translation that could not be filled in."""
    given, wanted = _placeholders(message.string), _placeholders(message.id)
    if not given <= wanted:
        unknown = ", ".join(sorted(given - wanted))
        raise TemplateError(f"{path}, line {message.lineno}: the translation uses %({unknown})s, the text does not")
    if "%" in re.sub(r"%\(\w+\)[a-z]|%%", "", _text(message.string)):
        raise TemplateError(f"{path}, line {message.lineno}: a % is written %%, and what stands for a value %(name)s")


def _text(text: str | Sequence[str] | None) -> str:
    return text if isinstance(text, str) else " ".join(text or ())


def _placeholders(text: str | Sequence[str] | None) -> set[str]:
    return set(re.findall(r"%\((\w+)\)", _text(text)))


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
