"""The demo's view of what customers get: every kind of message in every language, made by the code that sends."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.simulator.letters import read_letter
from service.simulator.look import Look, shown_frame
from service.simulator.mail import Mail
from service.simulator.stage import Service, Shown

_NAME = re.compile(r"(?P<locale>[a-z-]+?)-(?P<kind>mail|sms|page)(?:-(?P<what>[a-z-]+))?\.(?P<end>html|txt|eml)")
_DOCUMENT = "invoice.pdf"
_FIRST = "nb-mail-invoice.html"
_WORDS = {"mail": "Mail", "sms": "SMS", "page": "Invoice page"}


class _Made:
    """The previews, once somebody asked for them, by name."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = asyncio.Lock()
        self._files: dict[str, Shown] | None = None

    async def files(self) -> dict[str, Shown]:
        async with self._lock:
            if self._files is None:
                made = await asyncio.to_thread(self._service.previews)
                self._files = {shown.name: shown for shown in made}
            return self._files


def preview_routes(service: Service, look: Look) -> list[Route]:
    """Return the routes of `/preview`: one preview among all, and what is shown of it in a frame."""
    made = _Made(service)

    async def choose(request: Request) -> Response:
        files = await made.files()
        shown = [name for name in files if name.endswith(".html") or "-sms-" in name]
        wanted = request.query_params.get("show", "")
        name = next(one for one in (wanted, _FIRST, shown[0]) if one in shown)
        parts = _parts(name)
        return look.page(
            "preview.html",
            shown=name,
            remark=files[name].remark,
            text=_text(files, name) if parts["kind"] == "sms" else None,
            plain=_text(files, name) if parts["kind"] == "mail" else None,
            locale=parts["locale"],
            locales=[(_parts(one)["locale"], one) for one in shown if _about(one) == _about(name)],
            kinds=[(_title(one), one) for one in shown if _parts(one)["locale"] == parts["locale"]],
            narrow=parts["kind"] != "mail",
        )

    async def frame(request: Request) -> Response:
        files, name = await made.files(), request.path_params["name"]
        if name == _DOCUMENT:
            return Response(status_code=204)  # the button of the page that is looked at: a browser stays where it is
        if name not in files or not name.endswith(".html"):
            return look.missing("preview")
        mail = files.get(f"{name.removesuffix('.html')}.eml")
        return shown_frame(files[name].content.decode() if mail is None else _with_pictures(mail.content))

    return [Route("/preview", choose, methods=["GET"]), Route("/preview/{name}", frame, methods=["GET"])]


def _parts(name: str) -> dict[str, str | None]:
    found = _NAME.fullmatch(name)
    assert found is not None, name  # the names are the service's own
    return found.groupdict()


def _text(files: Mapping[str, Shown], name: str) -> str:
    """Return the plain text of a message, whichever of its files is named."""
    return files[f"{name.rpartition('.')[0]}.txt"].content.decode()


def _about(name: str) -> tuple[str | None, ...]:
    return tuple(_parts(name)[part] for part in ("kind", "what"))


def _title(name: str) -> str:
    kind, what = _about(name)
    return f"{_WORDS[str(kind)]}: {what}" if what else _WORDS[str(kind)]


def _with_pictures(content: bytes) -> str:
    """Return a mail's HTML with its pictures in place."""
    nobody = datetime(2026, 1, 1, tzinfo=UTC)
    mail = Mail(number=0, sender="", recipients=(), content=content, received_at=nobody, queue_id="")
    return read_letter(mail).html or ""
