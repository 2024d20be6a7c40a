"""Logging: one JSON line per event, libraries included, and nothing personal or secret in it whoever wrote it."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from service import log


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_begins_with_time_level_and_event(out: io.StringIO) -> None:
    log.configure("json", "info", stream=out)
    structlog.get_logger().info("callback.received", transaction_id="T12345678.abc", duration_ms=1.5, result="new")
    (line,) = lines(out)
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert datetime.fromisoformat(line["timestamp"]).tzinfo == UTC
    del line["timestamp"]
    assert line == {
        "level": "info",
        "event": "callback.received",
        "transaction_id": "T12345678.abc",
        "duration_ms": 1.5,
        "result": "new",
    }


def test_levels_below_the_chosen_one_are_silent(out: io.StringIO) -> None:
    log.configure("json", "warning", stream=out)
    structlog.get_logger().info("delivery.sent")
    structlog.get_logger().warning("callback.rejected")
    assert [line["event"] for line in lines(out)] == ["callback.rejected"]


def test_standard_output_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json", "info")
    structlog.get_logger().info("service.started")
    assert json.loads(capsys.readouterr().out)["event"] == "service.started"


def test_free_text_is_scrubbed_and_ids_are_not(out: io.StringIO) -> None:
    log.configure("json", "info", stream=out, secrets=["hunter-two"])
    structlog.get_logger().info(
        "delivery.postponed",
        reason="550 <kari@nordmann.example> +47 999 99 999 unknown, try 2026-11-23 10:00",
        answer="Bearer eyJhbGciOi.x.y, login HUNTER-two",
        parts=["ola@nordmann.example"],
        message_id="<abc@butikken.example>",
        delivery_id="12345678901",
        amount=123456789,
    )
    (line,) = lines(out)
    assert line["reason"] == "550 <***> *** unknown, try 2026-11-23 10:00"
    assert line["answer"] == "Bearer ***, login ***"
    assert line["parts"] == "['***']"
    assert (line["message_id"], line["delivery_id"]) == ("<abc@butikken.example>", "12345678901")
    assert line["amount"] == 123456789


@pytest.mark.parametrize(
    "key", ["token", "Authorization", "client_secret", "password", "address", "billing_address", "phone", "body"]
)
def test_what_is_secret_by_its_name_is_dropped(out: io.StringIO, key: str) -> None:
    log.configure("json", "info", stream=out)
    structlog.get_logger().info("delivery.sent", **{key: "plain", "channel": "email"})
    (line,) = lines(out)
    assert set(line) == {"timestamp", "level", "event", "channel"}


def fails_with(text: str) -> None:
    quite_secret_local = "local@nordmann.example"
    assert quite_secret_local
    raise ValueError(text)


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_are_scrubbed_and_show_no_variables(out: io.StringIO, form: Any) -> None:
    log.configure(form, "info", stream=out, secrets=["hunter-two"])
    try:
        fails_with("no kari@nordmann.example\nnor hunter-two" + " x" * 600)
    except ValueError:
        structlog.get_logger().exception("alarm.unexpected_error")
    text = out.getvalue()
    assert "fails_with" in text
    assert "ValueError" in text
    for secret in ("kari@", "hunter-two", "local@"):
        assert secret not in text
    if form == "json":
        assert lines(out)[0]["exception"].startswith('Traceback (most recent call last):\n  File "')


def test_libraries_warn_in_the_same_shape(out: io.StringIO) -> None:
    log.configure("json", "debug", stream=out)
    logging.getLogger("sqlalchemy.pool").warning("lost %s", "kari@nordmann.example")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.access").warning("GET /callback?transaction_id=T1")
    try:
        fails_with("ola@nordmann.example")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old kari@nordmann.example", stacklevel=1)
    found = lines(out)
    assert [line["logger"] for line in found] == ["sqlalchemy.pool", "uvicorn.error", "py.warnings"]
    assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in found)
    assert found[0]["event"] == "lost ***"
    assert "nordmann" not in out.getvalue()


def test_configuring_anew_reaches_loggers_in_use(out: io.StringIO) -> None:
    logger = structlog.get_logger()
    log.configure("json", "info", stream=io.StringIO())
    logger.info("first.event")
    log.configure("json", "info", stream=out)
    logger.info("second.event")
    logging.getLogger("alembic").warning("once")
    assert [line["event"] for line in lines(out)] == ["second.event", "once"]


def test_a_terminal_gets_words(out: io.StringIO) -> None:
    log.configure("console", "info", stream=out)
    structlog.get_logger().info("delivery.sent", channel="email")
    assert "delivery.sent" in out.getvalue()
    assert "channel=email" in out.getvalue()
    assert "\x1b[" not in out.getvalue()
