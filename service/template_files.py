"""Where templates and catalogues lie, and which languages there are: for the settings and the renderer. A leaf."""

from collections.abc import Collection, Sequence
from pathlib import Path

_RELATED = {"nn": "nb", "no": "nb", "se": "nb"}  # who reads this also reads that
LAST = "en"
"""The language of those who have no other."""


def shipped_templates() -> Path:
    """Return the folder of our own templates: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parent
    packed = package / "_templates"
    return packed if packed.is_dir() else package.parent / "templates"


def template_folders(templates_dir: Path | None) -> tuple[Path, ...]:
    """Return the folders in which a file is looked for, the merchant's own first."""
    return tuple(folder.resolve() for folder in (templates_dir, shipped_templates()) if folder is not None)


def catalogues(folders: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    """Return every language's catalogues by its tag, those of earlier folders first: what one lacks, the next has.

    The name may say a country, too: nb_NO.po is one of nb.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for folder in folders:
        for path in sorted(folder.glob("locales/*.po")):
            tag = language_tag(path.stem)
            found[tag] = (*found.get(tag, ()), path)
    return found


def language_tag(locale: str) -> str:
    """Return the language of a locale such as `nb`, `nb_NO` or `en-GB`, which is what catalogues are named by."""
    return locale.replace("_", "-").split("-")[0].lower()


def stand_ins(tag: str, fallback: str, known: Collection[str]) -> list[str]:
    """Return the languages with a catalogue that stand in for `tag`, best first."""
    wanted = [tag, _RELATED.get(tag, tag), fallback, _RELATED.get(fallback, fallback), LAST]
    return [one for one in dict.fromkeys(wanted) if one in known]


def is_translated(tag: str, known: Collection[str]) -> bool:
    """Say whether readers of `tag` have a catalogue, of it or of a language that they read as well."""
    return tag in known or _RELATED.get(tag) in known
