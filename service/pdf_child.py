"""The child process that opens PDF documents, run as a script: it knows pypdf and nothing of the service.

It says `ready` once it could open one of its own. Then it reads documents from standard input, each after its length
in eight bytes, and answers each with a line of JSON: `{"pages": 3}` or `{"problem": "it is encrypted"}`. After pages
comes a second line with their text, `{"text": "Invoice ..."}`, null where it cannot be read; who dies of reading it has
said before that the document opens. It ends after an answer that says `"last": true`.
"""

import io
import json
import logging
import os
import resource
import struct
import sys
import time
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pypdf import PdfReader

_LENGTH = struct.Struct(">Q")
_MOST_TEXT = 200_000  # characters
_MOST_PAGES = 20  # whose text is read: the first and the last of an invoice say what is asked for here
_TAIL = 1024  # bytes from the end within which a whole PDF has its end mark
_SMALLEST = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Count 1/Kids[3 0 R]>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj
xref
0 4
0000000000 65535 f\x20
0000000009 00000 n\x20
0000000052 00000 n\x20
0000000101 00000 n\x20
trailer<</Size 4/Root 1 0 R>>
startxref
160
%%EOF
"""


def main() -> None:
    """Answer until standard input ends. Arguments: address space in bytes, processor seconds per document."""
    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit(resource.RLIMIT_AS, memory)
    small, reader = _look(_SMALLEST)  # what is imported late is imported now, and no document is blamed for us
    if small != {"pages": 1} or reader is None or _read(reader) != {"text": ""}:
        sys.exit(1)
    _say(answers, "ready")
    while (document := _next(sys.stdin.buffer)) is not None:
        _limit(resource.RLIMIT_CPU, int(time.process_time()) + seconds + 1)
        found, reader = _look(document)
        _say(answers, json.dumps(found))
        if reader is not None:
            found = _read(reader)
            _say(answers, json.dumps(found))
        if found.get("last"):
            return


def _look(document: bytes) -> tuple[dict[str, object], "PdfReader | None"]:
    """Return what is said of a document, and its reader where it opens."""
    from pypdf import PdfReader  # noqa: PLC0415

    if b"%%EOF" not in document[-_TAIL:]:
        return {"problem": "it is cut short"}, None  # pypdf may find an earlier end in it and make do with that
    try:
        reader = PdfReader(io.BytesIO(document))
        if reader.is_encrypted:
            return {"problem": "it is encrypted"}, None
        pages = sum(1 for page in reader.pages if page.mediabox is not None)
    # Who knows what such a document has left in this process, of the memory above all: the next one gets another.
    except MemoryError:
        return {"problem": "it needs too much memory to open", "last": True}, None
    except Exception as exc:  # noqa: BLE001 - whatever a hostile document makes of a parser, it cannot be opened
        return {"problem": f"it cannot be opened ({type(exc).__name__})", "last": True}, None
    return ({"pages": pages}, reader) if pages else ({"problem": "it has no pages"}, None)


def _read(reader: "PdfReader") -> dict[str, object]:
    """Return the text of the first and the last pages, up to one that cannot be read; let go of the document."""
    texts: list[str] = []
    with reader.stream:  # closed, it lets go of the document; the reader lives on in its own rings
        try:
            pages = list(reader.pages)
            some = pages if len(pages) <= _MOST_PAGES else [*pages[: _MOST_PAGES - 1], pages[-1]]
            texts.extend(page.extract_text() for page in some)
        except Exception:  # noqa: BLE001 - as above: it opens, and not all that it says can be read
            return {"text": "\n".join(texts)[:_MOST_TEXT] or None, "last": True}
    return {"text": "\n".join(texts)[:_MOST_TEXT]}


def _limit(what: int, most: int) -> None:
    """Lower the soft limit only: the next document may need a higher one."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _next(documents: BinaryIO) -> bytes | None:
    header = documents.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(header)
    return documents.read(length)


def _say(answers: BinaryIO, line: str) -> None:
    answers.write(line.encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
