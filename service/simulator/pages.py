"""The demo's pages: what is going on, the inbox, the record. Everything else on their port is the service's."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from service.simulator.documents import Refusal
from service.simulator.faults import GROUPS, KINDS, Fault
from service.simulator.letters import Letter
from service.simulator.months import CUSTOMERS
from service.simulator.sales import Buyer, Country
from service.simulator.stage import COUNTRIES, SHOP, Stage, clock_time

_FOLDER = Path(__file__).parent / "pages"
_SAFE = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}
_MAIL_SAFE = _SAFE | {
    "content-security-policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'self'",
}
_FILE_SAFE = {key: _SAFE[key] for key in ("referrer-policy", "x-content-type-options", "cache-control")}
_ASSETS = {"style.css": "text/css", "script.js": "text/javascript", "logo.png": "image/png"}
_LONGEST_FORM = 4096  # bytes

Handler = Callable[[Request], Awaitable[Response]]


class _Pages:
    """The handlers. Every one answers with headers that keep a page to itself."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._templates = Environment(
            loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._templates.filters["clock"] = clock_time

    def _page(self, name: str, status: int = 200, **values: Any) -> Response:
        shared = {"shop": SHOP, "stage": self._stage}
        html = self._templates.get_template(name).render(**(shared | values))
        return HTMLResponse(html, status, headers=_SAFE)

    def _missing(self, what: str) -> Response:
        return self._page("message.html", 404, title="Not found", text=f"There is no such {what}.")

    async def home(self, _: Request) -> Response:
        return self._page(
            "home.html",
            invoices=await self._stage.standings(),
            countries=COUNTRIES,
            kinds_of_fault=GROUPS,
            customers=CUSTOMERS,
            groups=await self._stage.groups(),
        )

    async def groups(self, _: Request) -> Response:
        return self._page("groups.html", groups=await self._stage.groups())

    async def buy(self, request: Request) -> Response:
        (name,) = await _form(request, "customer")
        if name and name not in CUSTOMERS:
            return self._page("message.html", 400, title="Not bought", text="The form was not filled in as it can be.")
        self._stage.buy(*filter(None, (name,)))
        return RedirectResponse("/#groups", 303, headers=_SAFE)

    async def move(self, request: Request) -> Response:
        (days,) = await _form(request, "days")
        if days not in ("", "1", "10"):
            return self._page("message.html", 400, title="Not moved", text="The form was not filled in as it can be.")
        self._stage.move_on(int(days) if days else None)
        return RedirectResponse("/#groups", 303, headers=_SAFE)

    async def invoices(self, _: Request) -> Response:
        return self._page("invoices.html", invoices=await self._stage.standings())

    async def create(self, request: Request) -> Response:
        buyer, country, channel = await _form(request, "buyer", "country", "channel")
        if buyer not in get_args(Buyer) or country not in get_args(Country) or channel not in ("merchant", "kravia"):
            return self._page("message.html", 400, title="Not created", text="The form was not filled in as it can be.")
        self._stage.create(buyer, country, channel)  # type: ignore[arg-type]  # checked on the line above
        return RedirectResponse("/", 303, headers=_SAFE)

    async def pay(self, request: Request) -> Response:
        return self._act(self._stage.running.provider.pay, request, "the customer paid")

    async def void(self, request: Request) -> Response:
        return self._act(self._stage.running.provider.void, request, "the merchant voided it")

    def _act(self, act: Callable[[str], dict[str, Any]], request: Request, what: str) -> Response:
        try:
            transaction = act(request.path_params["transaction_id"])
        except Refusal as refusal:
            return self._page("message.html", refusal.status, title="The provider refused", text=refusal.message)
        self._stage.told(str(transaction["metadata"].get("kravia:invoice_number", "")), what)
        return RedirectResponse("/", 303, headers=_SAFE)

    async def faults(self, _: Request) -> Response:
        return self._page("struck.html")

    async def fault_on(self, request: Request) -> Response:
        name, chance, count, where = await _form(request, "name", "chance", "count", "where")
        try:
            wanted = Fault(name=name, probability=int(chance) / 100, count=int(count) if count else None, where=where)
            self._stage.faults.commit(wanted)
        except (KeyError, ValueError):
            return self._page("message.html", 400, title="Not done", text="The form was not filled in as it can be.")
        self._stage.told("", f"{name}: switched on ({KINDS[name].about})")
        return RedirectResponse("/#faults", 303, headers=_SAFE)

    async def fault_off(self, request: Request) -> Response:
        (name,) = await _form(request, "name")
        if name:
            self._stage.faults.stop(name)
        else:
            self._stage.faults.clear()
        self._stage.told("", f"{name or 'all faults'}: switched off")
        return RedirectResponse("/#faults", 303, headers=_SAFE)

    async def inbox(self, _: Request) -> Response:
        return self._page("inbox.html", letters=self._stage.letters[::-1])

    async def letters(self, _: Request) -> Response:
        return self._page("letters.html", letters=self._stage.letters[::-1])

    def _letter(self, request: Request) -> Letter | None:
        number = request.path_params["number"]
        return self._stage.letters[number - 1] if 1 <= number <= len(self._stage.letters) else None

    async def letter(self, request: Request) -> Response:
        letter = self._letter(request)
        if letter is None:
            return self._missing("mail")
        views = [
            name for name, there in (("html", letter.html is not None), ("text", letter.text is not None)) if there
        ]
        wanted = request.query_params.get("view", "")
        view = wanted if wanted in (*views, "source") else (*views, "source")[0]
        source = letter.mail.content.decode("utf-8", "replace") if view == "source" else ""
        return self._page("letter.html", letter=letter, view=view, views=[*views, "source"], source=source)

    async def letter_html(self, request: Request) -> Response:
        letter = self._letter(request)
        if letter is None or letter.html is None:
            return self._missing("mail")
        return HTMLResponse(letter.html, headers=_MAIL_SAFE)

    async def letter_source(self, request: Request) -> Response:
        letter = self._letter(request)
        if letter is None:
            return self._missing("mail")
        name = f'attachment; filename="mail-{letter.mail.number}.eml"'
        return Response(
            letter.mail.content, media_type="message/rfc822", headers=_FILE_SAFE | {"content-disposition": name}
        )

    async def attachment(self, request: Request) -> Response:
        letter, place = self._letter(request), request.path_params["place"]
        if letter is None or not 1 <= place <= len(letter.attachments):
            return self._missing("attachment")
        attachment = letter.attachments[place - 1]
        pdf = attachment.media_type == "application/pdf"  # the only thing that is shown and not merely saved
        headers = {"content-disposition": f'{"inline" if pdf else "attachment"}; filename="{attachment.name}"'}
        media_type = attachment.media_type if pdf else "application/octet-stream"
        return Response(attachment.content, media_type=media_type, headers=_FILE_SAFE | headers)

    async def record(self, request: Request) -> Response:
        record = await self._stage.record(request.path_params["transaction_id"])
        if record is None:
            return self._missing("record")
        history = record.get("history") or []
        facts = [(name.replace("_", " "), value) for name, value in record.items() if name != "history"]
        raw = json.dumps(record, indent=2, ensure_ascii=False)
        return self._page("record.html", record=record, facts=facts, history=history, raw=raw)

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            return PlainTextResponse("Not found", 404, headers=_SAFE)
        return Response((_FOLDER / name).read_bytes(), media_type=_ASSETS[name], headers=_SAFE)


async def _form(request: Request, *names: str) -> list[str]:
    """Return the values of a form, empty where there is none."""
    form = parse_qs((await request.body())[:_LONGEST_FORM].decode("utf-8", "replace"))
    return [form.get(name, [""])[0].strip() for name in names]


def _own(handler: Handler) -> Handler:
    """Let only this site's own pages act, not one that another site opened in the same browser."""

    async def handle(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return PlainTextResponse("Not from there", 403, headers=_SAFE)
        return await handler(request)

    return handle


def site(stage: Stage) -> Starlette:
    """Return the demo's site: its pages, and behind them the service."""
    pages = _Pages(stage)
    return Starlette(
        routes=[
            Route("/", pages.home),
            Route("/demo/invoices", pages.invoices),
            Route("/demo/groups", pages.groups),
            Route("/demo/buy", _own(pages.buy), methods=["POST"]),
            Route("/demo/move", _own(pages.move), methods=["POST"]),
            Route("/demo/letters", pages.letters),
            Route("/demo/faults", pages.faults),
            Route("/demo/faults/on", _own(pages.fault_on), methods=["POST"]),
            Route("/demo/faults/off", _own(pages.fault_off), methods=["POST"]),
            Route("/demo/create", _own(pages.create), methods=["POST"]),
            Route("/demo/pay/{transaction_id}", _own(pages.pay), methods=["POST"]),
            Route("/demo/void/{transaction_id}", _own(pages.void), methods=["POST"]),
            Route("/demo/{name}", pages.asset),
            Route("/inbox", pages.inbox),
            Route("/inbox/{number:int}", pages.letter),
            Route("/inbox/{number:int}/html", pages.letter_html),
            Route("/inbox/{number:int}/source", pages.letter_source),
            Route("/inbox/{number:int}/attachment/{place:int}", pages.attachment),
            Route("/record/{transaction_id}", pages.record),
            Mount("/", app=stage.service.asgi),
        ]
    )
