"""Logging set up: one line per event on one stream, in JSON or for a terminal, scrubbed once more as a last resort."""

import json
import logging
import sys
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from service.privacy import scrub

_SHORT = 32
_FIRST = ("timestamp", "level", "event")
# Ids that a search must find whole; our own make, or found usable before they came here.
_IDS = frozenset({"transaction_id", "delivery_id", "message_id", "logger", *_FIRST})
_DROPPED = frozenset(
    {
        "address",
        "apikey",
        "authorization",
        "bcc",
        "body",
        "cookie",
        "credentials",
        "email",
        "headers",
        "iban",
        "mail",
        "mobile",
        "password",
        "passwd",
        "phone",
        "query",
        "recipient",
        "secret",
        "secrets",
        "signature",
        "token",
        "tokens",
    }
)


def configure(
    format: Literal["json", "console"],  # noqa: A002  # named as the setting is
    level: str,
    *,
    stream: TextIO | None = None,
    secrets: Iterable[str] = (),
) -> None:
    """Send our events and, from warnings up, those of the libraries to `stream` (standard output).

    `secrets` are masked wherever they turn up; they are what no pattern knows. May be called again.
    """
    out = sys.stdout if stream is None else stream
    known = tuple(secret for secret in secrets if len(secret) > 3)  # noqa: PLR2004  # shorter ones would mask words
    least = getattr(logging, level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        partial(_scrubbed, secrets=known),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _ordered,
    ]
    written = _renderer(format, out)
    structlog.configure(
        processors=[*shared, written],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,  # a second call must reach the loggers that are in use
    )
    _route_libraries(shared, written, out)


def _renderer(format: str, out: TextIO) -> Processor:  # noqa: A002
    if format == "json":
        encode = json.JSONEncoder(ensure_ascii=False, default=str).encode  # made once, not for every line
        return structlog.processors.JSONRenderer(serializer=lambda event, **_: encode(event))
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=20
    )


def _route_libraries(shared: list[Processor], written: Processor, out: TextIO) -> None:
    """Give what libraries log through the standard module the same shape and stream; their warnings too."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, written],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"


def _scrubbed(_logger: WrappedLogger, _method: str, event: EventDict, *, secrets: tuple[str, ...]) -> EventDict:
    """Drop what must not be there by its name, and scrub every text that may have come from outside."""
    kept: EventDict = {}
    for key, value in event.items():
        if key.startswith("_") or (key in _IDS and key != "event"):
            kept[key] = value
        elif not _dropped(key):
            kept[key] = _value(key, value, secrets)
    return kept


@lru_cache(maxsize=256)
def _dropped(key: str) -> bool:
    return not _DROPPED.isdisjoint(key.lower().split("_"))


def _value(key: str, value: object, secrets: tuple[str, ...]) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if key in {"exception", "stack"}:
        return "\n".join(_line(line, secrets) for line in str(value).splitlines())
    text = str(value)
    return _word(text, secrets) if len(text) <= _SHORT else scrub(text, secrets)


@lru_cache(maxsize=256)  # names of events, results and lanes: every line has some, and they are few
def _word(text: str, secrets: tuple[str, ...]) -> str:
    return scrub(text, secrets)


def _line(line: str, secrets: tuple[str, ...]) -> str:
    """Scrub one line of a traceback and leave it where it is indented."""
    return line[: len(line) - len(line.lstrip())] + scrub(line, secrets)


def _ordered(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put what one looks for first at the front."""
    return {**{key: event[key] for key in _FIRST if key in event}, **event}
