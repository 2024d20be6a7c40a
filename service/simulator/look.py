"""How the demo's pages are made and kept to themselves: templates, headers, and who may post a form."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from service.simulator.stage import clock_time

FOLDER = Path(__file__).parent / "pages"
SAFE = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
MAIL_SAFE = SAFE | {
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'self'",
}
FILE_SAFE = {key: SAFE[key] for key in ("referrer-policy", "x-content-type-options", "cache-control")}
_LONGEST_FORM = 4096  # bytes

Handler = Callable[[Request], Awaitable[Response]]


class Look:
    """Makes pages of the templates; `shared` are the values that all of them may use."""

    def __init__(self, **shared: Any) -> None:
        self._shared = shared
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.filters["clock"] = clock_time

    def page(self, name: str, status: int = 200, **values: Any) -> Response:
        """Return a page, or a part of one."""
        html = self._templates.get_template(name).render(**(self._shared | values))
        return HTMLResponse(html, status, headers=SAFE)

    def message(self, status: int, title: str, text: str) -> Response:
        """Return a page that says one thing."""
        return self.page("message.html", status, title=title, text=text)

    def missing(self, what: str) -> Response:
        """Return the page for what is not there."""
        return self.message(404, "Not found", f"There is no such {what}.")


def shown_frame(html: str) -> Response:
    """Return a mail or another foreign page for a frame on one of ours."""
    return HTMLResponse(html, headers=MAIL_SAFE)


def pdf(content: bytes, name: str) -> Response:
    """Return a PDF to be looked at."""
    headers = {"content-disposition": f'inline; filename="{name}"'}
    return Response(content, media_type="application/pdf", headers=FILE_SAFE | headers)


def away(path: str) -> Response:
    """Return what leads to another page of ours once something was done."""
    return RedirectResponse(path, 303, headers=SAFE)


async def form(request: Request, *names: str) -> list[str]:
    """Return the values of a form, empty where there is none."""
    found = parse_qs((await request.body())[:_LONGEST_FORM].decode("utf-8", "replace"))
    return [found.get(name, [""])[0].strip() for name in names]


def own(handler: Handler) -> Handler:
    """Let only this site's own pages act, not one that another site opened in the same browser."""

    async def handle(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return PlainTextResponse("Not from there", 403, headers=SAFE)
        return await handler(request)

    return handle
