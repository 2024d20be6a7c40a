"""The command itself, as a process: exit statuses, what goes to which stream, and how quickly it answers."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from service import cli_frame
from service.settings import setting_names
from tests.test_settings import env

REPOSITORY = Path(__file__).parent.parent
COMMAND = [sys.executable, "-m", "service"]


def clean(**more: str) -> dict[str, str]:
    """Return this process's environment without the caller's settings, and with `more`."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("DELIVERY_")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), **more}


def run(folder: Path, *arguments: str | bytes, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean(**settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def to_nobody(*arguments: str, **settings: str) -> int:
    """Run a command whose standard output is a pipe that nobody reads; return its exit status."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=clean(**settings),
            stdin=subprocess.DEVNULL,
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(write)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.returncode


def test_help_names_every_command(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("serve", "worker", "demo", "check", "deliveries", "migrate"):
        assert f"  {command} " in done.stdout
    inner = run(tmp_path, "deliveries", "--help").stdout
    for command in ("list", "show", "retry", "resend", "cancel", "resolve"):
        assert f"  {command} " in inner


def quickest(folder: Path, *arguments: str, **settings: str) -> float:
    """Return the least processor seconds of a few runs: it waits for nothing, and others may be at work here."""

    def spent() -> float:
        used = os.times()
        return used.children_user + used.children_system

    def took() -> float:
        began = spent()
        assert run(folder, *arguments, **settings).returncode == 0
        return spent() - began

    return min(took() for _ in range(5))


def test_help_is_there_at_once(tmp_path: Path) -> None:
    assert quickest(tmp_path, "--help") < 0.4


def test_a_listing_is_there_soon(tmp_path: Path) -> None:
    settings = {"DELIVERY_DATABASE_URL": "sqlite:///record.db"}
    assert run(tmp_path, "migrate", **settings).returncode == 0
    assert quickest(tmp_path, "deliveries", "list", **settings) < 1.5


def test_the_version_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "--version")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
    assert done.stdout.startswith("merchant-delivery ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("serve", "--port", "99999"),
        ("demo", "--port", "0"),
        ("deliveries", "list", "--limit", "0"),
        ("deliveries", "list", "--outcome", "lost"),
        ("deliveries", "show"),
        ("deliveries", "retry"),
        ("deliveries", "list", "--since", "yesterday"),
        ("deliveries", "retry", "T1", "--outcome", "failed"),
        ("deliveries", "resolve", "T1", "--delivered"),
        ("deliveries", "resolve", "T1", "--reason", "asked"),
        ("pause", "email"),
        ("deliveries", "resend", "T1", "--to", "nobody"),
        ("deliveries", "resend", "T1", "--to", "me@shop.local"),
        ("deliveries", "resend", "T1", "--to", '"odd, local"@shop.example'),
        ("deliveries", "resend", "T1", "T2", "--to", "post@butikken.example"),
        ("deliveries", "resend", "--outcome", "failed", "--to", "post@butikken.example"),
        ("deliveries", "show", b"T\xff"),
        ("deliveries", "retry", "T1", "--reason", b"\xff"),
    ],
)
def test_wrong_usage_is_2(tmp_path: Path, arguments: tuple[str | bytes, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: merchant-delivery" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "worker", "check"])
def test_wrong_settings_are_2_all_at_once_and_start_nothing(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, DELIVERY_ADMIN_PORT="x", DELIVERY_SMTP_ULR="s3cret", DELIVERY_ACCOUNT_ID="P12345678")
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert lines[0].startswith("Warning: DELIVERY_SMTP_ULR: ")
    named = {line.split(":")[0] for line in lines[1:]}
    assert {"DELIVERY_ADMIN_PORT", "DELIVERY_CLIENT_SECRET", "DELIVERY_SMTP_URL", "DELIVERY_PUBLIC_URL"} <= named
    assert named <= set(setting_names())
    assert "s3cret" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("migrate",), ("deliveries", "list"), ("deliveries", "cancel", "T1")])
def test_the_record_needs_its_own_setting_alone(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run(tmp_path, *command, DELIVERY_DATABASE_URL="mysql://u:s3cret@h/n", DELIVERY_CONCURRENCY="x")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("DELIVERY_DATABASE_URL: ")
    assert "s3cret" not in line


def test_settings_come_from_the_folder_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DELIVERY_DATABASE_URL=nowhere\n")
    assert run(tmp_path, "migrate").returncode == 2
    assert run(tmp_path, "migrate", DELIVERY_DATABASE_URL="sqlite:///record.db").returncode == 0
    assert (tmp_path / "record.db").exists()


def test_a_record_that_is_not_there_is_1_in_plain_words(tmp_path: Path) -> None:
    done = run(tmp_path, "deliveries", "list", "--json", DELIVERY_DATABASE_URL="postgresql://u:s3cret@127.0.0.1:1/n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The record cannot be used: ")
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def up(port: int) -> None:
    """Return once a port answers; what was said at the start may be a moment early."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        try:
            get(port, "/livez")
        except ConnectionRefusedError:
            time.sleep(0.01)
        else:
            return


def get(port: int, path: str) -> int:
    conn = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        conn.request("GET", path)
        return conn.getresponse().status
    finally:
        conn.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_serve_listens_logs_json_and_stops_when_told(tmp_path: Path, how: signal.Signals) -> None:
    port, admin = free_port(), free_port()
    given = env(ADMIN_PORT=str(admin), DATABASE_URL="sqlite:///record.db", SMTP_URL="smtp+insecure://127.0.0.1:1")
    serve = [*COMMAND, "serve", "--host", "127.0.0.1", "--port", str(port), "--no-worker"]
    with subprocess.Popen(
        serve, cwd=tmp_path, env=clean(**given), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        try:
            assert json.loads(first)["event"] == "service.started"
            up(port)
            up(admin)
            assert (get(port, "/livez"), get(port, "/readyz"), get(port, "/metrics")) == (200, 200, 404)
            assert (get(port, "/callback"), get(port, "/delivery/callback")) == (401, 401)
            assert (get(admin, "/metrics"), get(admin, "/readyz"), get(admin, "/callback")) == (200, 200, 404)
        finally:
            process.send_signal(how)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events.count("callback.rejected") == 2
    assert not [event for event in events if event.startswith("alarm")]


def test_a_taken_port_is_1_without_a_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(tmp_path, "serve", "--host", "127.0.0.1", "--port", port, **env(DATABASE_URL="sqlite:///record.db"))
    assert (done.returncode, done.stdout) == (1, "")
    assert port in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
@pytest.mark.parametrize("arguments", ["deliveries list", "deliveries list --json", "pauses --json", "--version"])
@pytest.mark.parametrize("to", [">/dev/full", ">&-"])
def test_what_cannot_be_shown_is_1_and_a_line(tmp_path: Path, arguments: str, to: str) -> None:
    settings = {"DELIVERY_DATABASE_URL": "sqlite:///record.db", "DELIVERY_ACCOUNT_ID": "T12345678"}
    assert run(tmp_path, "migrate", **settings).returncode == 0
    filled = "import tests.commands as c; c.enter('sqlite:///record.db', 'T1')"
    subprocess.run([sys.executable, "-c", filled], cwd=tmp_path, env=clean(), check=True)
    done = subprocess.run(
        f"{shlex.join(COMMAND)} {arguments} {to}",
        shell=True,  # it is the shell that closes standard output
        cwd=tmp_path,
        env=clean(**settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith("Standard output cannot be written: ")


def test_a_listing_without_standard_output_asks_for_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert cli_frame.width() is None
