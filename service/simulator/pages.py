"""The demo's pages: what is going on, the inbox, the record. Everything else on their port is the service's."""

import json
from collections.abc import Callable
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from service.simulator.documents import Refusal
from service.simulator.erp_pages import erp_routes
from service.simulator.faults import GROUPS, KINDS, Fault
from service.simulator.letters import Letter
from service.simulator.look import FILE_SAFE, FOLDER, SAFE, Look, away, form, own, shown_frame
from service.simulator.months import CUSTOMERS
from service.simulator.preview_pages import preview_routes
from service.simulator.sales import Buyer, Country
from service.simulator.sms_pages import sms_routes
from service.simulator.stage import COUNTRIES, SHOP, Stage
from service.simulator.ways import WAYS

_ASSETS = {"style.css": "text/css", "script.js": "text/javascript", "logo.png": "image/png"}


class _Pages:
    """The handlers. Every one answers with headers that keep a page to itself."""

    def __init__(self, stage: Stage, look: Look) -> None:
        self._stage = stage
        self._look = look

    def _page(self, name: str, status: int = 200, **values: Any) -> Response:
        return self._look.page(name, status, **values)

    def _missing(self, what: str) -> Response:
        return self._look.missing(what)

    async def home(self, _: Request) -> Response:
        return self._page(
            "home.html",
            invoices=await self._stage.standings(),
            countries=COUNTRIES,
            ways=WAYS,
            kinds_of_fault=GROUPS,
            customers=CUSTOMERS,
            groups=await self._stage.groups(),
        )

    async def groups(self, _: Request) -> Response:
        return self._page("groups.html", groups=await self._stage.groups())

    async def buy(self, request: Request) -> Response:
        (name,) = await form(request, "customer")
        if name and name not in CUSTOMERS:
            return self._look.message(400, "Not bought", "The form was not filled in as it can be.")
        self._stage.buy(*filter(None, (name,)))
        return away("/#groups")

    async def move(self, request: Request) -> Response:
        (days,) = await form(request, "days")
        if days not in ("", "1", "10"):
            return self._look.message(400, "Not moved", "The form was not filled in as it can be.")
        self._stage.move_on(int(days) if days else None)
        return away("/#groups")

    async def invoices(self, _: Request) -> Response:
        return self._page("invoices.html", invoices=await self._stage.standings())

    async def create(self, request: Request) -> Response:
        buyer, country, way = await form(request, "buyer", "country", "way")
        if buyer not in get_args(Buyer) or country not in get_args(Country) or way not in (*WAYS, "kravia"):
            return self._look.message(400, "Not created", "The form was not filled in as it can be.")
        self._stage.create(buyer, country, way)  # type: ignore[arg-type]  # checked on the line above
        return away("/")

    async def pay(self, request: Request) -> Response:
        return self._act(self._stage.running.provider.pay, request, "the customer paid")

    async def void(self, request: Request) -> Response:
        return self._act(self._stage.running.provider.void, request, "the merchant voided it")

    def _act(self, act: Callable[[str], dict[str, Any]], request: Request, what: str) -> Response:
        try:
            transaction = act(request.path_params["transaction_id"])
        except Refusal as refusal:
            return self._look.message(refusal.status, "The provider refused", refusal.message)
        self._stage.told(str(transaction["metadata"].get("kravia:invoice_number", "")), what)
        return away("/")

    async def faults(self, _: Request) -> Response:
        return self._page("struck.html")

    async def fault_on(self, request: Request) -> Response:
        name, chance, count, where = await form(request, "name", "chance", "count", "where")
        try:
            wanted = Fault(name=name, probability=int(chance) / 100, count=int(count) if count else None, where=where)
            self._stage.faults.commit(wanted)
        except (KeyError, ValueError):
            return self._look.message(400, "Not done", "The form was not filled in as it can be.")
        self._stage.told("", f"{name}: switched on ({KINDS[name].about})")
        return away("/#faults")

    async def fault_off(self, request: Request) -> Response:
        (name,) = await form(request, "name")
        if name:
            self._stage.faults.stop(name)
        else:
            self._stage.faults.clear()
        self._stage.told("", f"{name or 'all faults'}: switched off")
        return away("/#faults")

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
        return shown_frame(letter.html)

    async def letter_source(self, request: Request) -> Response:
        letter = self._letter(request)
        if letter is None:
            return self._missing("mail")
        name = f'attachment; filename="mail-{letter.mail.number}.eml"'
        return Response(
            letter.mail.content, media_type="message/rfc822", headers=FILE_SAFE | {"content-disposition": name}
        )

    async def bounce(self, request: Request) -> Response:
        letter = self._letter(request)
        if letter is None:
            return self._missing("mail")
        if (problem := await self._stage.bounce(letter)) is not None:
            return self._look.message(502, "Not told", problem)
        return away(f"/inbox/{letter.mail.number}")

    async def attachment(self, request: Request) -> Response:
        letter, place = self._letter(request), request.path_params["place"]
        if letter is None or not 1 <= place <= len(letter.attachments):
            return self._missing("attachment")
        attachment = letter.attachments[place - 1]
        pdf = attachment.media_type == "application/pdf"  # the only thing that is shown and not merely saved
        headers = {"content-disposition": f'{"inline" if pdf else "attachment"}; filename="{attachment.name}"'}
        media_type = attachment.media_type if pdf else "application/octet-stream"
        return Response(attachment.content, media_type=media_type, headers=FILE_SAFE | headers)

    async def record(self, request: Request) -> Response:
        record = await self._stage.record(request.path_params["transaction_id"])
        if record is None:
            return self._missing("record")
        history = record.get("history") or []
        facts = [(name.replace("_", " "), value) for name, value in record.items() if name not in ("history", "sends")]
        raw = json.dumps(record, indent=2, ensure_ascii=False)
        sends = record.get("sends") or []
        return self._page("record.html", record=record, facts=facts, history=history, sends=sends, raw=raw)

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            return PlainTextResponse("Not found", 404, headers=SAFE)
        return Response((FOLDER / name).read_bytes(), media_type=_ASSETS[name], headers=SAFE)


def site(stage: Stage) -> Starlette:
    """Return the demo's site: its pages, and behind them the service."""
    look = Look(shop=SHOP, stage=stage)
    pages = _Pages(stage, look)
    return Starlette(
        routes=[
            Route("/", pages.home),
            Route("/demo/invoices", pages.invoices),
            Route("/demo/groups", pages.groups),
            Route("/demo/buy", own(pages.buy), methods=["POST"]),
            Route("/demo/move", own(pages.move), methods=["POST"]),
            Route("/demo/letters", pages.letters),
            Route("/demo/faults", pages.faults),
            Route("/demo/faults/on", own(pages.fault_on), methods=["POST"]),
            Route("/demo/faults/off", own(pages.fault_off), methods=["POST"]),
            Route("/demo/create", own(pages.create), methods=["POST"]),
            Route("/demo/pay/{transaction_id}", own(pages.pay), methods=["POST"]),
            Route("/demo/void/{transaction_id}", own(pages.void), methods=["POST"]),
            *sms_routes(stage, look),
            *erp_routes(stage, look),
            *preview_routes(stage.service, look),
            Route("/demo/{name}", pages.asset),
            Route("/inbox", pages.inbox),
            Route("/inbox/{number:int}", pages.letter),
            Route("/inbox/{number:int}/html", pages.letter_html),
            Route("/inbox/{number:int}/source", pages.letter_source),
            Route("/inbox/{number:int}/bounce", own(pages.bounce), methods=["POST"]),
            Route("/inbox/{number:int}/attachment/{place:int}", pages.attachment),
            Route("/record/{transaction_id}", pages.record),
            Mount("/", app=stage.service.asgi),
        ]
    )
