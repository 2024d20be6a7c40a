"""The demo's inbox of texts, and the buttons that report what became of them."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.simulator.look import Look, away, form, own
from service.simulator.sms import NotReported, SmsServer, Text
from service.simulator.sms_wire import Fate, Kind
from service.simulator.stage import Stage

_TITLES: dict[Kind, str] = {
    "twilio": "Twilio",
    "sinch": "Sinch",
    "link": "LINK Mobility",
    "46elks": "46elks",
    "gatewayapi": "GatewayAPI",
}
_FATES: dict[str, Fate] = {"delivered": "delivered", "failed": "failed", "pending": "pending", "unknown": "unknown"}


def sms_routes(stage: Stage, look: Look) -> list[Route]:
    """Return the routes of `/sms`: the inbox, its list, and `POST /sms/{number}/report` (`fate`)."""
    server = stage.sms

    def page(name: str) -> Response:
        return look.page(name, texts=server.inbox[::-1], titles=_TITLES, reported=server.reported)

    async def inbox(_: Request) -> Response:
        return page("sms.html")

    async def texts(_: Request) -> Response:
        return page("texts.html")

    async def tell(request: Request) -> Response:
        (wanted,) = await form(request, "fate")
        text, fate = _text(server, request), _FATES.get(wanted)
        if text is None or fate is None:
            return look.missing("text, or no such report")
        try:
            statuses = await stage.report(text, fate)
        except NotReported as exc:
            return look.message(502, "Not reported", f"It could not be reported: {exc}.")
        if any(status >= 300 for status in statuses):  # noqa: PLR2004  # not taken
            return look.message(502, "Not reported", f"The service answered {statuses[0]}.")
        return away("/sms")

    return [
        Route("/sms", inbox, methods=["GET"]),
        Route("/demo/texts", texts, methods=["GET"]),
        Route("/sms/{number:int}/report", own(tell), methods=["POST"]),
    ]


def _text(server: SmsServer, request: Request) -> Text | None:
    number = request.path_params["number"]
    return next((text for text in server.inbox if text.number == number), None)
