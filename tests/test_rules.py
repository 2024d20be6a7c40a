"""The alerts in deploy/ ask for what `/metrics` shows, for everything that a person must know, and say what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.delivery import Condition, Counts
from service.metrics import ALARMS, Metrics

FILE = Path(__file__).parent.parent / "deploy" / "prometheus-rules.yaml"
(GROUP,) = yaml.safe_load(FILE.read_text())["groups"]
RULES: list[dict[str, Any]] = GROUP["rules"]
ASKED = re.compile(r"(merchant_delivery_\w+)(?:\{([^}]*)\})?")
SAMPLE = re.compile(r"(\w+)(?:\{([^}]*)\})? \S+")


def labels(text: str | None) -> dict[str, str]:
    found = dict(re.findall(r'(\w+)="([^"]*)"', text or ""))
    assert text is None or ",".join(f'{name}="{value}"' for name, value in found.items()) == text.replace(", ", ",")
    return found


def shown() -> list[tuple[str, dict[str, str]]]:
    """Return every sample of a process that has just started."""
    metrics = Metrics()
    metrics.show_channels(["email"])
    metrics.show_reporting(["email"])
    counts = Counts(outcomes=(), due=0, overdue=0, oldest_open_age=None)
    lines = [line for line in metrics.render(counts).decode().splitlines() if not line.startswith("#")]
    found = [SAMPLE.fullmatch(line) for line in lines]
    return [(match[1], labels(match[2])) for match in found if match]


SHOWN = shown()


def in_a_rule(rule: dict[str, Any]) -> list[tuple[str, dict[str, str]]]:
    return [(name, labels(given or None)) for name, given in ASKED.findall(rule["expr"])]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_there(rule: dict[str, Any]) -> None:
    asked = in_a_rule(rule)
    assert asked
    for name, wanted in asked:
        assert any(name == known and wanted.items() <= given.items() for known, given in SHOWN), (name, wanted)
    for by in re.findall(r"by \((\w+)\)", rule["expr"]):
        assert all(by in given for name, given in SHOWN if name == asked[0][0])
    assert rule["expr"].count("(") == rule["expr"].count(")")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}
    told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert told <= set(re.findall(r"by \((\w+)\)", rule["expr"]))


def test_there_is_an_alert_for_every_condition() -> None:
    asked = {wanted["concern"] for rule in RULES for name, wanted in in_a_rule(rule) if "concern" in wanted}
    assert asked == {condition.value for condition in Condition}
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_alarms_that_are_asked_for_exist() -> None:
    asked = {wanted["alarm"] for rule in RULES for _, wanted in in_a_rule(rule) if "alarm" in wanted}
    assert asked <= set(ALARMS)
    assert {"store_unavailable", "content"} <= asked
