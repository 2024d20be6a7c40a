"""The little that every face needs of ASGI: paths and methods, small JSON answers, and no 500 whatever comes."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from typing import Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]
Routes = Mapping[str, Mapping[str, Handler]]
"""Path, then method, then who answers. A path may hold one parameter: `{name}` stands for anything but a slash."""

_log = structlog.get_logger()
PRIVATE: Final = {
    "cache-control": "private, no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex, nofollow, noarchive",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}
"""On every answer, for no address of ours is anybody else's business, and one of an invoice page is a secret."""
NOTHING_LOADED: Final = {"content-security-policy": "default-src 'none'"}


def answer(status: int, content: object, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer that no cache keeps."""
    return JSONResponse(content, status_code=status, headers=PRIVATE | NOTHING_LOADED | dict(headers or {}))


@cache
def taken() -> Response:
    """Return what a caller gets who told us something: one answer for all, for nothing of a request is in it."""
    return answer(200, {})


def error(status: int, word: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that says what is wrong in one constant word."""
    return answer(status, {"error": word}, headers=headers)


def under(prefixes: Iterable[str], routes: Routes) -> Routes:
    """Return `routes` with and without each prefix, for a proxy may keep or strip it."""
    return {prefix + path: methods for prefix in ("", *prefixes) for path, methods in routes.items()}


def application(routes: Routes, alarm: Callable[[str], None]) -> ASGIApp:
    """Return an application of exactly these paths and methods: no HEAD for GET, no redirect to another slash.

    What stands for a path's parameter is in the request's `path_params`, undecoded but for what the server did.

    `alarm` is told the name of the log event when a request meets a bug.
    """
    exact = {path: methods for path, methods in routes.items() if "{" not in path}
    patterns = [(_pattern(path), methods) for path, methods in routes.items() if "{" in path]

    def find(scope: Scope) -> tuple[Mapping[str, Handler] | None, Scope]:
        """Return who answers at a path; and the scope, with what stands for the parameter."""
        path = scope["path"]
        if path in exact:
            return exact[path], scope
        for pattern, methods in patterns:
            if found := pattern.fullmatch(path):
                return methods, {**scope, "path_params": found.groupdict()}
        return None, scope

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await _http(*find(scope), alarm, receive, send)

    return app


def _pattern(path: str) -> re.Pattern[str]:
    before, name, after = re.split(r"[{}]", path)
    return re.compile(rf"{re.escape(before)}(?P<{name}>[^/]+){re.escape(after)}")


async def _http(
    methods: Mapping[str, Handler] | None, scope: Scope, alarm: Callable[[str], None], receive: Receive, send: Send
) -> None:
    if methods is None:
        response = error(404, "not_found")
    elif scope["method"] not in methods:
        response = error(405, "method_not_allowed", headers={"allow": ", ".join(sorted(methods))})
    else:
        try:
            response = await methods[scope["method"]](Request(scope, receive))
        except ClientDisconnect:  # nobody is left to answer
            return
        except Exception:  # noqa: BLE001  # a bug of ours: it is logged, and the caller may try again
            _log.exception("alarm.unexpected_error")
            alarm("alarm.unexpected_error")
            response = error(503, "unavailable")
    await response(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing is opened or closed here; app.py does that."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
