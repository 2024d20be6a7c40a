"""The demo's view of the ERP: what was posted to it, and what it did not take."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.money import in_units
from service.simulator.erp import Posted
from service.simulator.look import Look, pdf
from service.simulator.stage import Stage


def erp_routes(stage: Stage, look: Look) -> list[Route]:
    """Return the routes of `/erp`: what came, its list, and the PDF of each."""
    server = stage.erp

    def page(name: str) -> Response:
        return look.page(
            name, posted=server.inbox[::-1], came=server.came, refused=server.refused[::-1], amount=_amount
        )

    async def inbox(_: Request) -> Response:
        return page("erp.html")

    async def entries(_: Request) -> Response:
        return page("posted.html")

    async def document(request: Request) -> Response:
        number = request.path_params["number"]
        posted = next((one for one in server.inbox if one.number == number), None)
        if posted is None or posted.document is None:
            return look.missing("invoice")
        return pdf(posted.document, f"erp-{number}.pdf")

    return [
        Route("/erp", inbox, methods=["GET"]),
        Route("/demo/posted", entries, methods=["GET"]),
        Route("/erp/{number:int}/invoice.pdf", document, methods=["GET"]),
    ]


def _amount(posted: Posted) -> str:
    return f"{in_units(posted.amount, posted.currency):,f} {posted.currency}"
