"""Answers that are not the usual one: refusals, other people's pages, half an answer, and none."""

import json
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from service.delivery import Clock
from service.simulator.deeds import Answer, Document
from service.simulator.documents import Refusal

_PAGE = "<!doctype html><title>Sorry</title><h1>Something went wrong</h1><p>Please try again in a few minutes.</p>"


class JsonResponse(Response):
    """JSON as the provider writes it; rendered at once, so that a later change of the document does not show."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


class _Silence(Response):
    """Says nothing until the other side has gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        while (await receive())["type"] != "http.disconnect":
            continue


class _Break(Response):
    """Begins an answer; the server closes the connection on what is never finished."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await send({"type": "http.response.start", "status": self.status_code, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


def answer_instead(answer: Answer, usual: Response | None, clock: Clock) -> Response:
    """Return what an `Answer` says; `usual` is there when what was asked for took effect."""
    if answer.lost is not None:
        return _Silence() if answer.lost == "silence" else _Break()
    if answer.body == "html":
        return HTMLResponse(_PAGE, answer.status)
    if answer.body == "usual" and usual is not None:
        return usual
    if answer.body == "cut short" and usual is not None:
        body = bytes(usual.body)
        return Response(body[: len(body) // 2], usual.status_code, media_type=usual.media_type)
    return refusal(Refusal(answer.status, answer.message), _retry_after(answer, clock))


def refusal(refused: Refusal, headers: dict[str, str] | None = None) -> Response:
    """Return the error JSON of dintero-api.md section 1."""
    return JsonResponse(refused.document, refused.status, headers)


def document_instead(document: Document, content: bytes) -> Response:
    """Return what a `Document` says instead of a PDF's bytes."""
    if document.status != 200:  # noqa: PLR2004
        return refusal(Refusal(document.status, "File not found", code="NOT FOUND"))
    if document.kind == "html":
        return HTMLResponse(_PAGE)
    return Response(content[: len(content) // 2] if document.kind == "cut short" else b"", media_type="application/pdf")


def _retry_after(answer: Answer, clock: Clock) -> dict[str, str]:
    if answer.retry_after is None:
        return {}
    if answer.as_date:
        at = clock.now() + timedelta(seconds=answer.retry_after)
        return {"retry-after": format_datetime(at, usegmt=True)}
    return {"retry-after": f"{answer.retry_after:g}"}
