"""Who may import whom, and that importing does nothing: the shape of the code, held by a test."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SERVICE = REPOSITORY / "service"
NOUNS = {"delivery", "privacy"}
WIRING = {"app", "cli", "cli_frame", "cli_reconcile", "cli_statement", "cli_webhooks", "cli_deliveries", "__main__"}
WIRING |= {"cli_create", "cli_explain", "cli_preview", "cli_routes"}

# What each part (a module or a package of `service`) may import of ours, its own modules aside. A name stands for that
# module alone; `name.*` for all of a package.
MAY: dict[str, set[str]] = {
    "delivery": set(),
    "privacy": set(),
    # small things that several parts stand on
    "addresses": NOUNS,
    "clock": NOUNS,
    "log": {"privacy"},
    "metrics": NOUNS,
    "money": set(),
    "png": set(),
    "record": {*NOUNS, "clock", "settings", "store.*"},
    "record_json": NOUNS,
    "serving": set(),
    "template_files": set(),
    "terminal": {*NOUNS, "money", "record_json"},
    # the core
    "alarms": {*NOUNS, "alerting", "metrics"},
    "alert_url": {*NOUNS, "concerns"},
    "alerting": {*NOUNS, "concerns", "metrics"},
    "capture": NOUNS,
    "chain": set(),
    "chores": {*NOUNS, "metrics"},
    "concerns": {*NOUNS, "money"},
    "content": NOUNS,
    "decide": {*NOUNS, "capture"},
    "comparing": {*NOUNS, "groups"},
    "grouping": NOUNS,
    "groups": {*NOUNS, "grouping", "purchases"},
    "groups_json": {*NOUNS, "groups"},
    "lanes": {*NOUNS, "decide"},
    "links": {*NOUNS, "sealing"},
    "pipeline": {*NOUNS, "capture", "content", "decide", "grouping", "metrics", "purchases", "routing"},
    "preview": NOUNS,
    "routing": NOUNS,
    "purchases": {*NOUNS, "grouping"},
    "reconcile": {*NOUNS, "decide", "grouping", "purchases"},
    "evidence": {*NOUNS, "chain", "record_json"},
    "explaining": {*NOUNS, "decide", "purchases"},
    "retention": NOUNS,
    "sealing": set(),
    "reconciling": {*NOUNS, "metrics", "purchases", "reconcile"},
    "statement": {*NOUNS, "decide", "purchases", "reconcile", "reconciling"},
    "subscription": {*NOUNS, "metrics"},
    "worker": {*NOUNS, "decide", "lanes", "metrics", "pipeline"},
    # what merchants create: pure but for the result file
    "organizations": set(),
    "order_checks": {"addresses", "organizations"},
    "ordering": {*NOUNS, "order_checks"},
    "batch": {"order_checks", "ordering"},
    "results": set(),
    "batching": {*NOUNS, "batch", "ordering", "results"},
    # adapters: never each other, never the settings
    "channels": {*NOUNS, "addresses", "clock"},  # the last for conformance, which opens adapters by itself
    "dintero": {*NOUNS, "ordering"},
    "pdf": {*NOUNS, "pdf_child"},
    "pdf_child": set(),  # it runs where a hostile document can do no harm, and should know nothing
    "render": {*NOUNS, "money", "png", "template_files"},
    "store": {*NOUNS, "chain"},
    "vault": NOUNS,
    "vault_s3": NOUNS,
    "receipts": NOUNS,
    "reporting": {*NOUNS, "metrics"},
    "web": {*NOUNS, "metrics"},
    # settings know the channels' table and the form of their addresses, to judge them before anything is opened
    "setting_sources": set(),
    "setting_values": {*NOUNS, "addresses", "channels", "channels.smtp_url", "png"},
    "settings": {*NOUNS, "channels", "setting_sources", "setting_values", "template_files"},
    # a program of its own; it signs as the provider does, in the one place that knows how
    "simulator": {*NOUNS, "clock", "dintero.callback", "dintero.webhook", "money", "serving"},
    "app": {
        *NOUNS,
        *("alarms", "alert_url", "alerting", "concerns", "explaining"),
        *("batch", "batching", "results"),
        *("receipts", "reporting"),
        *("chores", "clock", "comparing", "decide", "metrics", "pdf", "pipeline", "reconcile", "reconciling", "record"),
        *("groups", "groups_json", "preview", "record_json"),
        *("retention", "routing", "serving", "settings", "statement", "subscription", "template_files", "worker"),
        *("links", "sealing", "setting_values", "vault", "vault_s3"),
        *("channels.*", "dintero.*", "render.*", "store.*", "web.*"),
    },
    "cli": {
        *NOUNS,
        *("app", "cli_deliveries", "cli_frame", "cli_reconcile", "cli_statement", "cli_webhooks"),
        "cli_receipts",
        *(
            "cli_create",
            "cli_erase",
            "cli_groups",
            "cli_evidence",
            "cli_explain",
            "cli_pauses",
            "cli_preview",
            "cli_routes",
            "cli_schedule",
        ),
        *("cli_links", "log", "settings", "simulator.*", "terminal"),
    },
    "cli_acts": {*NOUNS, "addresses", "cli_choice", "cli_frame", "cli_voiding", "settings"},
    "cli_choice": {*NOUNS, "cli_frame"},
    "cli_create": {
        *NOUNS,
        *("app", "batch", "batching", "cli_file", "cli_frame", "ordering", "results", "settings", "terminal"),
    },
    "cli_deliveries": {
        *NOUNS,
        *("cli_acts", "cli_choice", "cli_evidence", "cli_frame", "cli_links", "cli_listing", "purchases"),
        "record_json",
        "terminal",
    },
    "cli_erase": {*NOUNS, "addresses", "cli_choice", "cli_frame"},
    "cli_evidence": {*NOUNS, "cli_choice", "cli_frame", "evidence"},
    "cli_explain": {
        *NOUNS,
        *("app", "cli_choice", "cli_file", "cli_frame", "explaining", "ordering", "record", "settings", "terminal"),
    },
    "cli_file": {"ordering"},
    "cli_frame": {*NOUNS, "app", "log", "record", "settings", "terminal"},
    "cli_groups": {
        *NOUNS,
        *("cli_choice", "cli_frame", "cli_groups_json", "cli_groups_table", "comparing", "grouping", "groups"),
        "settings",
    },
    "cli_groups_json": {*NOUNS, "grouping", "groups", "record_json"},
    "cli_groups_table": {*NOUNS, "cli_frame", "grouping", "groups", "record_json", "terminal"},
    "cli_links": {*NOUNS, "cli_choice", "cli_frame", "record_json", "terminal"},
    "cli_listing": {*NOUNS, "cli_choice", "cli_frame", "record_json", "terminal"},
    "cli_pauses": {*NOUNS, "app", "cli_choice", "cli_frame", "record_json", "settings", "terminal"},
    "cli_progress": {*NOUNS, "cli_frame", "reconcile"},
    "cli_receipts": {*NOUNS, "cli_frame", "metrics", "receipts", "receipts.dsn", "reporting", "settings"},
    "cli_reconcile": {
        *NOUNS,
        *("app", "cli_choice", "cli_frame", "cli_progress", "reconcile", "record_json", "settings", "terminal"),
    },
    "cli_preview": {*NOUNS, "app", "cli_file", "cli_frame", "ordering", "preview", "settings", "terminal"},
    "cli_routes": {*NOUNS, "app", "cli_choice", "cli_explain", "cli_frame", "settings"},
    "cli_schedule": {*NOUNS, "cli_frame", "grouping", "terminal"},
    "cli_statement": {
        *NOUNS,
        *("app", "cli_frame", "cli_progress", "reconcile", "record_json", "settings", "statement"),
        "terminal",
    },
    "cli_voiding": {*NOUNS, "app", "cli_frame", "settings"},
    "cli_webhooks": {*NOUNS, "app", "cli_frame", "settings", "subscription"},
    "__main__": {"cli"},
}

# The parts that a library has its home in; one that is not named may be used anywhere.
HOMES = {
    "aiosmtplib": {"channels"},
    "alembic": {"store"},
    "cryptography": {"receipts", "sealing"},
    "click": {name for name in MAY if name.startswith("cli")},
    "css_inline": {"render"},
    "dotenv": {"setting_sources"},
    "email_validator": {"addresses"},
    "fpdf": {"simulator"},
    "h11": {"dintero"},
    "holidays": {"grouping"},
    "httpx": set[str](),
    "httpx2": {"alert_url", "channels", "dintero", "receipts", "simulator"},
    "jinja2": {"render", "simulator"},
    "phonenumbers": {"channels"},
    "obstore": {"vault_s3"},
    "prometheus_client": {"metrics"},
    "psycopg": {"store"},
    "pydantic": {"settings"},
    "pypdf": {"pdf_child"},
    "requests": set[str](),
    "smtplib": set[str](),
    "sqlalchemy": {"store"},
    "sqlite3": {"store"},
    "starlette": {"app", "serving", "simulator", "web"},
    "uvicorn": {"serving"},
}


def modules() -> dict[str, Path]:
    """Return every module of the service by its name below `service`; the package itself is the empty name."""
    found = {}
    for path in sorted(SERVICE.rglob("*.py")):
        parts = path.relative_to(SERVICE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of whatever is imported anywhere in a module, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ["service", *filter(None, module.split("."))][: None if is_package else -1]
                base = ".".join([*above[: len(above) - node.level + 1], *([base] if base else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def ours(name: str) -> str | None:
    """Return which module of ours an imported name lies in, without `service.`; None for others' names."""
    if name.split(".", maxsplit=1)[0] != "service":
        return None
    path = name.split(".")[1:]
    while path and ".".join(path) not in MODULES:
        path.pop()
    return ".".join(path)


def allowed(part: str, target: str) -> bool:
    if target in ("", part) or target.startswith(f"{part}."):
        return True
    return target in MAY[part] or any(
        rule.endswith(".*") and (target == rule[:-2] or target.startswith(rule[:-1])) for rule in MAY[part]
    )


def used(module: str) -> list[tuple[int, str]]:
    path = MODULES[module]
    return list(imports(ast.parse(path.read_text()), module, is_package=path.name == "__init__.py"))


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_point_at_the_nouns(module: str) -> None:
    part = module.split(".", maxsplit=1)[0]
    assert part in MAY, f"{part} is new: say in MAY what it may import"
    sideways = [
        f"line {line}: {name}"
        for line, name in used(module)
        if (target := ours(name)) is not None and not allowed(part, target)
    ]
    assert not sideways


def test_table_names_no_part_that_is_gone() -> None:
    parts = {module.split(".")[0] for module in MODULES if module}
    rules = {rule.removesuffix(".*") for rules in MAY.values() for rule in rules}
    assert set(MAY) == parts
    assert rules <= set(MODULES)


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_libraries_stay_at_home(module: str) -> None:
    part = module.split(".", maxsplit=1)[0]
    astray = [
        f"line {line}: {name}" for line, name in used(module) if part not in HOMES.get(name.split(".")[0], {part})
    ]
    assert not astray


# The modules that know the HTTP client; one that opens a way out of its own is entered here.
HTTP_CLIENTS = {
    *("alert_url", "channels.http", "channels.oauth", "channels.sms", "dintero.wire", "receipts.amazon"),
    *("simulator.bounces", "simulator.callbacks", "simulator.sms"),
}


def test_few_modules_know_the_http_client() -> None:
    """It is imported under the older name, so that going back or on is a change of one line."""
    where = {module for module in MODULES if any(name.split(".")[0] == "httpx2" for _, name in used(module))}
    assert where == HTTP_CLIENTS
    for module in where:
        assert "import httpx2 as httpx\n" in MODULES[module].read_text()


def test_tests_may_see_everything_and_the_service_no_tests() -> None:
    assert not [module for module in MODULES for _, name in used(module) if name.split(".")[0] == "tests"]


# Who may ask the machine for the time or wait for it; everybody else is given a clock, that tests may move.
CLOCKS = {
    "channels.conformance.suite": "the reports that it has made are of this moment",
    "clock": "it is the clock",
    "cli_frame": "an operator's command is of this moment",
    "worker": "leases are renewed in real time, while the effects take as long as they take",
}
TIMES = {"datetime.now", "datetime.today", "datetime.utcnow", "date.today", "time.time", "time.sleep", "asyncio.sleep"}


def test_time_is_an_argument() -> None:
    used = set()
    for module, path in MODULES.items():
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if TIMES & {ast.unparse(call) for call in calls}:
            used.add(module)
    assert used == set(CLOCKS)


WATCH = """
import os, sys, threading
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
ours = tuple(sys.argv[1].split(os.pathsep))
seen = []
def watch(event, args):
    if event in {"socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.mkdir"}:
        seen.append(f"{event} {args}")
    elif event == "open" and isinstance(args[2], int) and args[2] & WRITES:
        seen.append(f"writes {args[0]}")
    elif event == "open" and str(args[0]).startswith(ours) and not str(args[0]).endswith((".py", ".pyc")):
        seen.append(f"reads {args[0]}")
sys.addaudithook(watch)
import importlib
for name in sys.argv[2:]:
    importlib.import_module(name)
if threading.active_count() != 1:
    seen.append("starts a thread")
sys.stderr.write("\\n".join(seen))
"""


def test_nothing_happens_at_import(tmp_path: Path) -> None:
    """No socket, no file, no process, no thread, no output; Alembic's own scripts are run, not imported."""
    names = [f"service.{name}".rstrip(".") for name in MODULES if "migrations" not in name and name != "__main__"]
    env = {name: text for name, text in os.environ.items() if not name.startswith("DELIVERY_")}
    watched = os.pathsep.join(str(REPOSITORY / folder) for folder in ("service", "templates"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCH, watched, *names],
        cwd=tmp_path,
        env={**env, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def started(*arguments: str) -> set[str]:
    """Return the modules that a command of ours has imported when it is done."""
    script = "import sys; from service.cli import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


def test_help_imports_only_what_it_needs() -> None:
    """So that `--help` is there at once: no database, no web server, no simulator."""
    slow = {"sqlalchemy", "alembic", "uvicorn", "starlette", "httpx2", "babel", "jinja2", "pypdf", "fpdf", "psycopg"}
    assert not started("--help") & {*slow, "pydantic", "service.app", "service.simulator"}


def test_a_listing_imports_the_record_and_not_the_service(record_url: str) -> None:
    """So that it is there in a second."""
    assert record_url
    needless = {"alembic", "uvicorn", "starlette", "httpx2", "babel", "jinja2", "aiosmtplib", "service.app"}
    found = started("deliveries", "list")
    assert "service.store" in found
    assert not found & needless


LISTING = """
import sys
from service.settings import Need, load_settings
from service.terminal import money
load_settings({}, need=Need.STORE)
assert money(50000, "RSD") == "500.00 RSD"
print(*sys.modules)
"""


def test_settings_and_tables_need_no_languages() -> None:
    """A listing is quick: languages, addresses and hosts take long to import, and it has none of them to judge."""
    done = subprocess.run(
        [sys.executable, "-c", LISTING],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(done.stdout.split()) & {"babel", "email_validator", "idna", "jinja2"}
