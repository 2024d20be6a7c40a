"""The demo's inbox of texts, and the buttons that report what became of them."""

from pathlib import Path
from urllib.parse import parse_qs

import httpx2 as httpx
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from service.simulator.sms import TROUBLES, SmsServer, Text
from service.simulator.sms_wire import Fate, Kind

_FOLDER = Path(__file__).parent / "pages"
_TITLES: dict[Kind, str] = {
    "twilio": "Twilio",
    "sinch": "Sinch",
    "link": "LINK Mobility",
    "46elks": "46elks",
    "gatewayapi": "GatewayAPI",
}
_FATES: dict[str, Fate] = {"delivered": "delivered", "failed": "failed", "pending": "pending", "unknown": "unknown"}
_SAFE = {
    "content-security-policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_LONGEST_FORM = 4096  # bytes


def sms_routes(server: SmsServer, *, shop: str) -> list[Route]:
    """Return the routes of `/sms`: the inbox, `POST /sms/{number}/report` (`fate`) and `POST /sms/faults` (`name`)."""
    templates = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )

    def page(status: int = 200, note: str = "") -> Response:
        html = templates.get_template("sms.html").render(
            shop=shop, texts=server.inbox[::-1], titles=_TITLES, reported=server.reported, troubles=TROUBLES, note=note
        )
        return HTMLResponse(html, status, headers=_SAFE)

    async def inbox(_: Request) -> Response:
        return page()

    async def tell(request: Request) -> Response:
        text, fate = _text(server, request), _FATES.get(await _field(request, "fate"))
        if text is None or fate is None:
            return page(404, "There is no such text.")
        try:
            statuses = await server.report(text, fate)
        except (httpx.HTTPError, ValueError):
            return page(502, "The report could not be sent: nobody asked for it, or nobody answered.")
        if any(status >= 300 for status in statuses):  # noqa: PLR2004  # not taken
            return page(502, f"The service answered {statuses[0]}.")
        return RedirectResponse("/sms", 303, headers=_SAFE)

    async def trouble(request: Request) -> Response:
        name = await _field(request, "name")
        if not name:
            server.clear()
        elif name in TROUBLES:
            server.on(name, count=1)
        else:
            return page(400, "There is no such fault.")
        return RedirectResponse("/sms", 303, headers=_SAFE)

    return [
        Route("/sms", inbox, methods=["GET"]),
        Route("/sms/faults", trouble, methods=["POST"]),
        Route("/sms/{number:int}/report", tell, methods=["POST"]),
    ]


def _text(server: SmsServer, request: Request) -> Text | None:
    number = request.path_params["number"]
    return next((text for text in server.inbox if text.number == number), None)


async def _field(request: Request, name: str) -> str:
    if int(request.headers.get("content-length") or _LONGEST_FORM + 1) > _LONGEST_FORM:
        return ""
    found = parse_qs((await request.body()).decode("utf-8", "replace"))
    return found.get(name, [""])[0]
