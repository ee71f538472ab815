"""The units: systemd accepts them, they are well closed, and a server under them restarts without refusing anybody."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.cli.support import LIMIT_S, SCRIPTED, Command
from websockets.asyncio.client import connect

from antiphon.cli.systemd_units import Choice, units

DEPLOY = Path(__file__).parents[2] / "deploy/systemd"
NAMES = ("antiphon.socket", "antiphon.service", "antiphon-service@.service")
PROGRAM = "/opt/antiphon/bin/antiphon"


def analyze(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The real `systemd-analyze`; `make test` installs it."""
    found = shutil.which("systemd-analyze")
    assert found, "systemd-analyze is not here: apt-get install systemd"
    (folder / "run/systemd").mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [found, *arguments],
        cwd=folder,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder / "run"), "SYSTEMD_PAGER": ""},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def write(choice: Choice, folder: Path) -> None:
    for name, text in units(choice).items():
        (folder / name).write_text(text)


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is of Linux")
@pytest.mark.parametrize(
    ("user", "gpu", "host"),
    [(False, False, "127.0.0.1"), (False, True, "::1"), (True, False, "127.0.0.1")],
)
def test_systemd_takes_them(user: bool, gpu: bool, host: str, tmp_path: Path) -> None:
    write(Choice("/bin/true", host, 8000, user, gpu), tmp_path)
    asked = [f"./{name.replace('@', '@tts')}" for name in NAMES]
    found = analyze("--user" if user else "--system", "verify", *asked, folder=tmp_path)
    # What is said of other units of this machine is not about ours.
    ours = [line for line in found.stderr.splitlines() if "antiphon" in line]
    assert (found.returncode, ours) == (0, [])


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is of Linux")
@pytest.mark.parametrize("gpu", [False, True])
def test_they_are_well_closed(gpu: bool, tmp_path: Path) -> None:
    write(Choice("/bin/true", gpu=gpu), tmp_path)
    found = analyze(
        "security", "--offline=true", "--threshold=25", "./antiphon.service", folder=tmp_path
    )
    assert found.returncode == 0, found.stdout[-300:]  # 10 is open, 2.5 the limit here


def test_the_units_in_the_repository_are_those_that_are_installed() -> None:
    """If not: `antiphon install systemd --dir deploy/systemd --program /opt/antiphon/bin/antiphon`."""
    expected = units(Choice(PROGRAM))
    assert set(expected) == set(NAMES) == {path.name for path in DEPLOY.iterdir()}
    for name, text in expected.items():
        assert (DEPLOY / name).read_text() == text, name


@pytest.mark.parametrize("drain_s", [0, 120, 3600])
def test_nothing_is_killed_that_still_drains(drain_s: int) -> None:
    for text in units(Choice(PROGRAM, drain_s=drain_s)).values():
        limit = re.search(r"TimeoutStopSec=(\d+)", text)
        assert limit is None or int(limit[1]) >= drain_s + 30
        assert "User=root" not in text


# --- the command ----------------------------------------------------------------------------------


def test_writes_where_it_is_told(tmp_path: Path) -> None:
    antiphon = Command(tmp_path)
    units_at = tmp_path / "units"
    done = antiphon("install", "systemd", "--dir", units_at, "--port", "9000", "--host", "0.0.0.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in units_at.iterdir()} == set(NAMES)
    assert "ListenStream=0.0.0.0:9000" in (units_at / "antiphon.socket").read_text()
    dry = antiphon("install", "systemd", "--dry-run", "--dir", tmp_path / "nowhere")
    assert dry.stdout.count("[Service]") == 2
    assert not (tmp_path / "nowhere").exists()


def test_for_one_user(tmp_path: Path) -> None:
    antiphon = Command(tmp_path, {"XDG_CONFIG_HOME": str(tmp_path / "config")})
    done = antiphon("install", "systemd", "--user")
    assert (done.returncode, done.stderr) == (0, "")
    assert "systemctl --user enable --now antiphon.socket" in done.stdout
    secrets = tmp_path / "config/antiphon/antiphon.env"
    assert secrets.stat().st_mode & 0o777 == 0o600
    secrets.write_text("ANTIPHON_API_KEY=mine\n")
    again = antiphon("install", "systemd", "--user")
    assert f"kept {secrets}" in again.stdout
    assert secrets.read_text() == "ANTIPHON_API_KEY=mine\n"
    unit = (tmp_path / "config/systemd/user/antiphon.service").read_text()
    assert "DynamicUser" not in unit
    assert "WantedBy=default.target" in unit


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--program", "/home/me/bin/antiphon"], "install into /opt/antiphon"),
        (["--program", "bin/antiphon"], "takes an absolute path"),
        (["--dir", "/proc/nowhere"], "cannot write /proc/nowhere"),
    ],
)
def test_what_cannot_be(arguments: list[str], reason: str, tmp_path: Path) -> None:
    done = Command(tmp_path)("install", "systemd", *arguments)
    assert done.returncode == 1
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


# --- a server under systemd -----------------------------------------------------------------------


AS_SYSTEMD_DOES = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
    "os.execv(sys.executable, [sys.executable, '-m', 'antiphon', *sys.argv[2:]])"
)


def passing(descriptor: int, *arguments: str) -> list[str]:
    """The command line of a program that gets this descriptor as systemd passes it."""
    return [sys.executable, "-c", AS_SYSTEMD_DOES, str(descriptor), *arguments]


class Held:
    """A listening socket that outlives the processes that serve it, as systemd holds it."""

    def __init__(self, folder: Path) -> None:
        (folder / "antiphon.toml").write_text(SCRIPTED)
        self.command = Command(folder, {"ANTIPHON_SERVER__LOG_FORMAT": "json"})
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{}".format(*self.socket.getsockname()[1:])

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            passing(self.socket.fileno(), "serve", *arguments),
            cwd=self.command.folder,
            env={**self.command.environment(), "LISTEN_FDS": "1"},
            pass_fds=[self.socket.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )


def stop(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, said
    return said


def test_who_connects_during_a_restart_waits(tmp_path: Path) -> None:
    held = Held(tmp_path)

    async def ask() -> int:
        async with httpx.AsyncClient(timeout=LIMIT_S) as http:
            return (await http.get(f"http://{held.address}/health")).status_code

    async def main() -> None:
        for _ in range(2):
            # Nobody serves yet: the request is in the socket's queue, not refused.
            asked = asyncio.create_task(ask())
            process = await asyncio.to_thread(held.start)
            try:
                assert await asked == 200
                await asyncio.to_thread(stop, process)
            finally:
                process.kill()

    with held.socket:
        asyncio.run(main())


def test_a_call_goes_on_while_the_server_drains(tmp_path: Path) -> None:
    held = Held(tmp_path)

    async def main() -> None:
        process = await asyncio.to_thread(held.start, "--set", "server.drain_s=60")
        try:
            async with httpx.AsyncClient(base_url=f"http://{held.address}", timeout=20) as http:
                await until_status(http, "ready")
                async with connect(f"ws://{held.address}/ws/conversation") as call:
                    assert json.loads(await call.recv())["type"] == "connected"
                    process.send_signal(signal.SIGTERM)
                    await until_status(http, "draining")
                    await call.send(json.dumps({"type": "ping"}))
                    while b"pong" not in await call.recv(decode=False):
                        pass  # the greeting's frames come before
            said = await asyncio.to_thread(lambda: process.communicate(timeout=LIMIT_S)[1])
        finally:
            process.kill()
        assert process.returncode == 0
        lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        assert any("waiting up to 60 s for 1 calls" in line["message"] for line in lines)

    async def until_status(http: httpx.AsyncClient, status: str) -> None:
        async with asyncio.timeout(LIMIT_S):
            while (await http.get("/ready")).json()["status"] != status:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    with held.socket:
        asyncio.run(main())


@pytest.mark.parametrize(
    ("count", "reason"), [("2", "systemd passed 2 sockets"), ("1", "no TCP socket")]
)
def test_sockets_that_cannot_be_served(count: str, reason: str, tmp_path: Path) -> None:
    held = Held(tmp_path)
    held.socket.close()
    with socket.socket(socket.AF_UNIX) as wrong:
        done = subprocess.run(
            passing(wrong.fileno(), "serve"),
            cwd=tmp_path,
            env={**held.command.environment(), "LISTEN_FDS": count},
            pass_fds=[wrong.fileno()],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    assert done.returncode == 1
    assert reason in done.stderr
