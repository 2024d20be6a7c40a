"""The image, as far as it can be tried without an engine: its steps are carried out, its result is started."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dockerfile import Image, build, instructions

REPOSITORY = Path(__file__).parent.parent
USER = 10001
SETTINGS = {
    "DELIVERY_ACCOUNT_ID": "T00000000",
    "DELIVERY_CLIENT_ID": "client",
    "DELIVERY_CLIENT_SECRET": "secret",
    "DELIVERY_SIGNATURE_SECRETS": "signature",
    "DELIVERY_PUBLIC_URL": "https://invoices.example.com",
    "DELIVERY_CHECKOUT_URL": "http://127.0.0.1:9/v1",
    "DELIVERY_API_URL": "http://127.0.0.1:9/v1",
    "DELIVERY_SMTP_URL": "smtp+insecure://127.0.0.1:9",
    "DELIVERY_MAIL_FROM": "Nordmann Sykkel <faktura@nordmann.example>",
    "DELIVERY_REDIRECT_TO": "test@nordmann.example",
    "DELIVERY_BRAND_NAME": "Nordmann Sykkel",
}


# Only root can become the image's user; anyone else is already somebody without rights.
AS_USER = USER if os.geteuid() == 0 else None
NO_GROUPS: list[int] | None = [] if os.geteuid() == 0 else None


def _runs_for_user(python: str) -> bool:
    words = [python, "-c", "import sys, ensurepip, venv, sqlite3; sys.exit(sys.version_info < (3, 11))"]
    try:
        tried = subprocess.run(
            words, user=AS_USER, group=AS_USER, extra_groups=NO_GROUPS, capture_output=True, check=False
        )
    except OSError:  # not there, or behind a folder that is closed to others
        return False
    return tried.returncode == 0


def _python() -> str:
    """Return a Python for the base image's; one in root's own home is out of reach for the image's user."""
    here = str(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    names = [
        here,
        *(
            f"{folder}/{name}"
            for folder in ("/usr/local/bin", "/usr/bin")
            for name in ("python3.13", "python3.12", "python3.11", "python3")
        ),
    ]
    found = next(filter(_runs_for_user, names), None)
    assert found is not None, f"none of {names} is a Python 3.11 with venv that user {USER} may run"
    return found


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Build it once; not under pytest's own folder, which is closed to other users."""
    scratch = Path(tempfile.mkdtemp(prefix="image-", dir="/tmp"))  # short, for it stands in `#!` lines
    scratch.chmod(0o755)
    env = {name: text for name, text in os.environ.items() if name.startswith(("PIP_", "HOME", "SSL_", "LANG"))}
    try:
        made = build(REPOSITORY / "Dockerfile", REPOSITORY, scratch, python=_python(), env=env)
        subprocess.run(["chmod", "-R", "a-w", made.root], check=True)
        subprocess.run(["chmod", "-R", "u+w", made.root / "data", made.root / "tmp"], check=True)
        (made.root / "tmp").chmod(0o1777)
        yield made
    finally:
        subprocess.run(["chmod", "-R", "u+w", scratch], check=True)
        shutil.rmtree(scratch)


def start(image: Image, words: list[str], **env: str) -> "subprocess.Popen[str]":
    """Start a process as the container would: its own environment and nobody's rights."""
    return subprocess.Popen(
        [image.here(word) for word in words],
        cwd=image.place("."),
        env={**image.env, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=AS_USER,
        group=AS_USER,
        extra_groups=NO_GROUPS,
    )


def run(image: Image, words: list[str], **env: str) -> tuple[int, str]:
    with start(image, words, **env) as process:
        output, _ = process.communicate(timeout=120)
    return process.returncode, output


def entrypoint(image: Image, *arguments: str) -> list[str]:
    return [*image.command("ENTRYPOINT"), *arguments]


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    assert isinstance(port, int)
    return port


def files(root: Path) -> set[str]:
    """Return every path of the image but those below its writable folders."""
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.relative_to(root).parts[0] not in {"data", "tmp"}
    }


def test_tree_is_closed_to_the_user(image: Image) -> None:
    """What the other tests rest on: that user is not root, and can write to the volume and to /tmp only."""
    code, output = run(image, ["python", "-c", "import os; print(os.geteuid(), flush=True); open('/opt/venv/x', 'w')"])
    assert code == 1
    assert "PermissionError" in output
    assert not output.startswith("0\n")
    assert run(image, ["sh", "-c", "echo > /data/x && echo > /tmp/x && rm /data/x /tmp/x"]) == (0, "")


def test_last_stage_says_how_it_is_run(image: Image) -> None:
    assert image.config["USER"] == f"{USER}:{USER}"
    assert f":x:{USER}:" in (image.root / "etc" / "passwd").read_text()
    assert image.config["VOLUME"] == "/data"
    assert image.config["EXPOSE"].split() == ["8080", "9090"]
    assert image.config["STOPSIGNAL"] == "SIGTERM"
    assert image.command("CMD") == ["serve"]
    assert image.env["DELIVERY_ADMIN_PORT"] == "9090"
    assert image.env["DELIVERY_ADMIN_HOST"] == "0.0.0.0"


def test_both_stages_rest_on_the_same_python() -> None:
    bases = {rest.split()[0] for name, rest in instructions((REPOSITORY / "Dockerfile").read_text()) if name == "FROM"}
    assert bases == {"python:${PYTHON}-slim"}


def test_nothing_of_the_build_is_left(image: Image) -> None:
    assert {path.name for path in (image.root / "opt").iterdir()} == {"venv", "bytecode"}
    assert not (image.root / "src").exists()
    installed = {
        path.name.split("-")[0] for path in (image.root / "opt" / "venv").glob("lib/*/site-packages/*.dist-info")
    }
    assert {"merchant_delivery", "obstore"} <= installed  # LINK_STORE may be a bucket
    assert not installed & {"pip", "hatchling", "pytest", "mypy", "ruff"}


def test_byte_code_is_found_not_made(image: Image) -> None:
    modules = "json, email.message, service.delivery"
    ask = f"import sys, {modules}; print(*(sys.modules[m].__spec__.cached for m in '{modules}'.split(', ')))"
    code, output = run(image, ["python", "-c", ask])
    assert code == 0
    assert all(
        Path(path).is_relative_to(image.root / "opt" / "bytecode") and Path(path).is_file() for path in output.split()
    )


def test_version_and_help(image: Image) -> None:
    version = next((image.root / "opt" / "venv").glob("lib/*/site-packages/merchant_delivery-*.dist-info")).name.split(
        "-"
    )[1][: -len(".dist")]
    code, output = run(image, entrypoint(image, "--version"))
    assert (code, version in output) == (0, True), output
    code, output = run(image, entrypoint(image, "--help"))
    assert code == 0
    assert "serve" in output


def test_templates_are_in_the_wheel(image: Image) -> None:
    code, output = run(image, ["python", "-c", "import service; print(service.__path__[0])"])
    assert code == 0
    carried = Path(output.strip()) / "_templates"
    assert carried.is_relative_to(image.root)
    own = REPOSITORY / "templates"
    expected = {path.relative_to(own) for path in own.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert expected
    assert {path.relative_to(carried) for path in carried.rglob("*") if path.is_file()} == expected


def test_demo_runs_in_it(image: Image) -> None:
    before = files(image.root)
    code, output = run(image, entrypoint(image, "demo", "--exit"))
    assert (code, "captured" in output) == (0, True), output
    assert files(image.root) == before


def test_serve_is_healthy_and_stops(image: Image) -> None:
    settings = {**SETTINGS, "DELIVERY_ADMIN_PORT": str(free_port())}
    check = json.loads(image.config["HEALTHCHECK"].partition("CMD ")[2])
    assert run(image, check, **settings)[0] != 0, "the health check passes without a service"
    before = files(image.root)
    words = entrypoint(image, *image.command("CMD"), "--port", str(free_port()))
    with start(image, words, **settings) as process:
        try:
            deadline = time.monotonic() + 30
            while run(image, check, **settings)[0] != 0:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline, "not healthy after 30 s"
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=40)
    assert process.returncode == 0, output
    assert (image.root / "data" / "deliveries.db").is_file(), "the record is not on the volume"
    assert files(image.root) == before
    if os.geteuid() == 0:
        assert (image.root / "data" / "deliveries.db").stat().st_uid == USER


def test_user_has_no_rights_on_this_machine() -> None:
    """The numbers are the image's own: were they somebody's here, the tests above would prove less."""
    assert USER not in {entry.pw_uid for entry in pwd.getpwall()}
