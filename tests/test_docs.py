"""What is written for people agrees with the code: README, compose file, Dockerfile and Makefile."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from service.channels import BUILT_IN
from service.channels.http import open_http
from service.cli import cli
from service.delivery import Counts, DecidedBy, Delivery, DeliveryFailure, Outcome, Proof, Result, Step
from service.dintero.webhook import WEBHOOK_PATH
from service.metrics import CALLBACK_RESULTS, Metrics
from service.record_json import delivery_json
from service.routing import read_routes
from service.settings import Need, Settings, load_settings, secret_names, setting_names
from service.web.pages import NO_PAGE
from tests.test_http_channel import composed
from tests.test_http_channel import context as erp

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text()
COMPOSE = yaml.safe_load((REPOSITORY / "deploy" / "compose.yaml").read_text())
NAMED = re.compile(r"\bDELIVERY_[A-Z_]*[A-Z]\b")
EVENT = re.compile(r"(callback|delivery|receipt|service|alarm)\.[a-z_]+")
EXAMPLES = {"DELIVERY_X_FILE", "DELIVERY_POST_KEY"}  # a form, and an outside adapter's own


def section(title: str) -> str:
    """Return the part of the README below a heading of any level, up to the next of the same or a higher one."""
    found = re.search(rf"^(#+) {re.escape(title)}$", README, re.MULTILINE)
    assert found is not None, f"no heading {title}"
    rest = README[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables in a text, heads left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    heads = {index - 1 for index, row in enumerate(cells) if set("".join(row)) <= {"-"}}
    return [row for index, row in enumerate(cells) if index not in heads and index - 1 not in heads]


def block(text: str, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


# --- settings --------------------------------------------------------------------------------------------------------


def test_table_of_settings_is_whole_and_in_order() -> None:
    assert tuple(row[0].strip("`") for row in rows(section("Settings"))) == setting_names()


def test_table_of_settings_has_the_right_defaults() -> None:
    told = {row[0].strip("`"): row[1] for row in rows(section("Settings"))}
    for name, field in Settings.model_fields.items():
        full = f"DELIVERY_{name.upper()}"
        if full not in told:
            continue
        if field.is_required():
            assert told[full] == "**required**", full
        elif field.default == "":
            assert re.match(r"empty|none|\*\*required\*\*", told[full]), full
        else:
            assert told[full].startswith(f"`{field.default}`"), full


def test_secrets_are_marked() -> None:
    marked = {row[0].strip("`") for row in rows(section("Settings")) if row[2].endswith("*Secret*")}
    assert marked == set(secret_names())


@pytest.mark.parametrize("path", ["README.md", "deploy/compose.yaml", "Dockerfile", "Makefile"])
def test_every_setting_that_is_mentioned_exists(path: str) -> None:
    known = {*setting_names(), *(f"{name}_FILE" for name in secret_names()), *EXAMPLES}
    of_example = set(NAMED.findall((REPOSITORY / "deploy/examples/adapter/portal.py").read_text()))
    assert set(NAMED.findall((REPOSITORY / path).read_text())) <= known | of_example


def test_example_settings_are_accepted() -> None:
    lines = [line for line in section("1. Start it").splitlines() if line.startswith("DELIVERY_")]
    settings = load_settings(dict(line.split("=", 1) for line in lines), need=Need.SERVE)
    assert settings.warnings == ()


# --- the rest of the README ------------------------------------------------------------------------------------------


def test_every_outcome_has_its_row() -> None:
    named = [row[0].strip("`") for row in rows(section("What happens to an invoice"))]
    assert named[: len(Outcome)] == [outcome.value for outcome in Outcome]


@pytest.mark.parametrize("words", [DecidedBy, Proof, Step, Result])
def test_every_word_of_the_json_is_explained(words: type[DecidedBy | Proof | Step | Result]) -> None:
    told = section("The JSON")
    assert not [word.value for word in words if f"`{word.value}`" not in told]


def test_example_json_has_the_fields() -> None:
    example = json.loads(block(section("The JSON"), "json"))
    delivery = Delivery(id="d", account_id="T12345678", transaction_id="t", received_at=datetime.now(UTC))
    assert list(example) == list(delivery_json(delivery, ()))
    assert set(example["history"][0]) == {"at", "step", "result", "channel", "detail", "message_id"}


def commands(group: click.Group, above: str) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{above} {name}")
        else:
            yield f"{above} {name}", command


@pytest.mark.parametrize(("name", "command"), list(commands(cli, "merchant-delivery")), ids=str)
def test_every_command_and_option_is_there(name: str, command: click.Command) -> None:
    assert f"`{name}" in README, f"{name} has no row"
    told = section("Operating it")
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    assert not [option for option in options if option not in told]


@pytest.mark.parametrize(
    "group", [cli, *(one for one in cli.commands.values() if isinstance(one, click.Group))], ids=str
)
def test_no_line_of_a_list_of_commands_is_cut_off(group: click.Group) -> None:
    told = group.get_help(click.Context(group, terminal_width=80))
    assert not [line for line in told.partition("Commands:")[2].splitlines() if line.endswith("...")]


def test_no_command_is_there_that_does_not_exist() -> None:
    known = {name for name, _ in commands(cli, "merchant-delivery")} | {"merchant-delivery"}
    known |= {name.rpartition(" ")[0] for name in known}  # a group, before its own commands
    for told in re.findall(r"merchant-delivery ((?:deliveries )?[a-z]+)", section("Operating it")):
        assert f"merchant-delivery {told}" in known, told


def test_every_metric_is_there_and_no_other() -> None:
    counts = Counts(outcomes=(), due=0, overdue=0, oldest_open_age=None)
    shown = re.findall(r"^# TYPE (merchant_delivery_\w+)", Metrics().render(counts).decode(), re.MULTILINE)
    told = re.findall(r"`(merchant_delivery_\w+)", section("Health and metrics"))
    assert {name for name in shown if not name.endswith("_created")} == set(told)


def test_every_result_of_a_callback_is_there() -> None:
    told = section("The log")
    assert not [result for result in CALLBACK_RESULTS if f"`{result}`" not in told]


def test_every_log_event_is_there_and_no_other() -> None:
    used = set()
    for path in (REPOSITORY / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and EVENT.fullmatch(node.value):
                used.add(node.value)
    told = {name for row in rows(section("The log")) for name in re.findall(r"`([a-z]+\.[a-z_]+)`", row[0])}
    assert used == told


def test_every_failure_of_a_channel_is_there() -> None:
    def below(root: type[DeliveryFailure]) -> set[str]:
        children = [child for child in root.__subclasses__() if child.__module__ == root.__module__]
        return {root.__name__}.union(*map(below, children))

    told = {row[0].strip("`") for row in rows(section("A channel of your own"))}
    assert below(DeliveryFailure) - {"DeliveryFailure", "BadDocument"} <= told


def test_links_lead_somewhere() -> None:
    missing = [to for to in re.findall(r"\]\(((?!http)[^)#]+)\)", README) if not (REPOSITORY / to).exists()]
    assert not missing


def test_anchors_lead_to_headings() -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", README, flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    there = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
    assert not set(re.findall(r"\]\(#([^)]+)\)", README)) - there


def test_diagrams_quote_what_their_labels_may_not_hold() -> None:
    """A bracket inside a label that is not quoted is a diagram that cannot be drawn."""
    diagrams = re.findall(r"^```mermaid\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(diagrams) == 2
    for diagram in diagrams:
        labels = re.findall(r"\w+(?:\(\[|[\[{(])([^\n]*?)(?:\]\)|[\]})])(?= |$)", diagram, re.MULTILINE)
        assert len(labels) > 5
        assert not [label for label in labels if re.search(r"[][(){}]", label) and not re.fullmatch('".*"', label)]


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    listed = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    listed += [one for extra in project["project"]["optional-dependencies"].values() for one in extra]
    names = {re.match(r"[\w-]+", one)[0] for one in listed if not one.startswith("types-")}  # type: ignore[index]
    told = section("Why it is so").lower()
    assert not [name for name in names if name not in told and name.removesuffix("lite") not in told]


def test_every_path_of_the_public_port_is_let_through() -> None:
    told = section("2. Let Dintero reach it, and nobody reach more")
    table, _, proxy = told.partition("```")
    for path in ("/callback", NO_PAGE, "/receipts/", WEBHOOK_PATH):
        assert f"`{path}" in table
        assert path in proxy


def test_example_of_rules_is_read() -> None:
    rules = read_routes(
        block(section("Which channel, and what when it fails"), "toml"), default=(), known=list(BUILT_IN)
    )
    assert len(rules.rules) == 4


async def test_example_of_what_an_erp_gets_is_what_it_gets() -> None:
    async with open_http(erp("https://erp.example/in")) as channel:
        said = json.loads(composed(channel).content)
    told = json.loads(block(section("To an ERP, or any URL"), "json"))
    assert list(told) == list(said)
    for name in ("buyer", "seller", "document"):
        assert list(told[name]) == list(said[name])


def test_callback_url_is_the_one_to_register() -> None:
    url = "https://invoices.example.com/callback?report_event=VOID&report_event=CAPTURE&report_error=true"
    assert f"\n{url}\n" in section("3. Register the callback")


# --- compose ---------------------------------------------------------------------------------------------------------


def ours() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in COMPOSE["services"].items() if service["image"] == "merchant-delivery"}


def seconds(text: str) -> int:
    assert re.fullmatch(r"\d+s", text)
    return int(text[:-1])


def test_compose_has_two_ways_to_run() -> None:
    plain = [name for name, service in COMPOSE["services"].items() if "profiles" not in service]
    assert plain == ["delivery"]
    assert ours()["delivery"].get("command", ["serve"]) == ["serve"]
    assert ours()["web"]["command"] == ["serve", "--no-worker"]
    assert ours()["worker"]["command"] == ["worker"]
    assert ours()["worker"]["deploy"]["replicas"] == 2
    assert {*COMPOSE["services"]} - {"delivery"} == {
        name for name, service in COMPOSE["services"].items() if service.get("profiles") == ["postgres"]
    }


@pytest.mark.parametrize("name", list(ours()))
def test_compose_gives_every_required_setting(name: str) -> None:
    """A secret is given by its file; what stands for one from outside is enough for the rest."""
    given = {key: "x" if key.endswith("_FILE") else text for key, text in ours()[name]["environment"].items()}
    assert not [key for key in given if key.removesuffix("_FILE") in secret_names() and not key.endswith("_FILE")]
    required = {f"DELIVERY_{key.upper()}" for key, field in Settings.model_fields.items() if field.is_required()}
    required |= {f"DELIVERY_{key}" for key in ("SIGNATURE_SECRETS", "SMTP_URL", "MAIL_FROM", "REDIRECT_TO")}
    assert required <= {key.removesuffix("_FILE") for key in given}


@pytest.mark.parametrize("name", list(ours()))
def test_compose_closes_every_container(name: str) -> None:
    service = ours()[name]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:8080:") for port in service.get("ports", []))
    grace = float(service["environment"]["DELIVERY_STOP_GRACE"])
    assert seconds(service["stop_grace_period"]) > grace


@pytest.mark.parametrize("name", list(ours()))
def test_compose_mounts_the_secrets_that_it_names(name: str) -> None:
    service = ours()[name]
    files = {Path(text).name for key, text in service["environment"].items() if key.endswith("_FILE")}
    assert files == set(service["secrets"])
    assert files <= set(COMPOSE["secrets"])


def test_compose_keeps_the_record() -> None:
    """SQLite on the volume by the image's default; PostgreSQL for all processes of its profile."""
    assert ours()["delivery"]["volumes"] == ["data:/data"]
    assert not [key for key in ours()["delivery"]["environment"] if key.startswith("DELIVERY_DATABASE_URL")]
    for name in ("web", "worker"):
        assert ours()[name]["environment"]["DELIVERY_DATABASE_URL_FILE"] == "/run/secrets/database_url"
        assert "volumes" not in ours()[name]


def test_secrets_stay_out_of_the_repository() -> None:
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    folders = {f"/deploy/{Path(secret['file']).parent}/" for secret in COMPOSE["secrets"].values()}
    files = {f"/deploy/{file['path']}" for service in ours().values() for file in service["env_file"]}
    assert folders | files <= set(ignored)
