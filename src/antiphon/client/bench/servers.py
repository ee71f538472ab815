"""Servers to be measured: started on a core of their own, waited for, looked at from outside, and ended.

What a process takes is read from `/proc`, children included; on other systems these figures are None. Knows a server by
its command line and its "Ready" line only.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from antiphon.errors import ModelError

_READY = re.compile(r"^Ready: http://[^ ]*:(\d+)")
_END_S = 20.0
_MAX_LINES = 100_000
STREAM_PATH = "/media-stream"
STAGES = "stages: "
"""What a peer writes on stderr for each turn, before a JSON object of step -> ms after the end of speech."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One of the things that are compared."""

    name: str
    command: Sequence[str]
    """Prints `Ready: http://host:port` on stderr when it takes calls."""
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = STREAM_PATH


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Of a process and its children, now."""

    cpu_s: float
    memory_bytes: int
    """Resident; pages that children share are counted once per process."""
    threads: int
    files: int


@dataclass(frozen=True, slots=True)
class Running:
    name: str
    url: str
    """Of its media stream."""
    pid: int
    pinned: bool
    lines: list[str] = field(default_factory=list)
    """What it wrote since it was ready; the first 100,000."""

    def stages_since(self, line: int) -> list[dict[str, float]]:
        """The steps of each turn that a peer told of after so many lines."""
        found = (text.removeprefix(STAGES) for text in self.lines[line:] if text.startswith(STAGES))
        return [json.loads(text) for text in found]

    def usage(self) -> ProcessUsage | None:
        """None where the system does not tell."""
        found = [u for u in map(_usage_of, _family(self.pid)) if u is not None]
        if not found:
            return None
        return ProcessUsage(
            sum(u.cpu_s for u in found),
            sum(u.memory_bytes for u in found),
            sum(u.threads for u in found),
            sum(u.files for u in found),
        )


def _family(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _family(int(child))
    return found


def _usage_of(pid: int) -> ProcessUsage | None:
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        pages = int((folder / "statm").read_text().split()[1])
        files = len(list((folder / "fd").iterdir()))
    except (OSError, IndexError, ValueError):
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    # Fields 14, 15 and 20 of proc_pid_stat(5); the first two are before the bracket.
    cpu_s = (int(fields[11]) + int(fields[12])) / ticks
    return ProcessUsage(cpu_s, pages * os.sysconf("SC_PAGE_SIZE"), int(fields[17]), files)


def cores() -> list[int]:
    """That this process may use; empty where nothing can be pinned."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def apart(wanted: bool = True) -> Iterator[int | None]:
    """This process on one core -> another one, for the server; None where there are not two, or none is wanted."""
    found = cores()
    if not wanted or len(found) < 2:
        yield None
        return
    os.sched_setaffinity(0, {found[1]})
    try:
        yield found[0]
    finally:
        os.sched_setaffinity(0, set(found))


@contextmanager
def running(contender: Contender, core: int | None = None) -> Iterator[Running]:
    """Start it, on this core alone, and end it. Raises ModelError with its last line when it does not get ready."""

    def pin() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    process = subprocess.Popen(
        list(contender.command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **contender.environment},
        start_new_session=True,
        preexec_fn=pin if core is not None else None,
    )
    try:
        lines: list[str] = []
        port = _wait_for_port(contender.name, process, lines)
        url = f"ws://127.0.0.1:{port}{contender.path}"
        yield Running(contender.name, url, process.pid, core is not None, lines)
    finally:
        _end(process)


def _wait_for_port(name: str, process: subprocess.Popen[str], lines: list[str]) -> int:
    assert process.stderr is not None
    last = ""
    for line in process.stderr:
        if ready := _READY.match(line):
            threading.Thread(
                target=_read_on, args=[process, lines], name="server log", daemon=True
            ).start()
            return int(ready[1])
        last = line.strip() or last
    raise ModelError(f"{name} did not start: {last.removeprefix('antiphon: ')}")


def _read_on(process: subprocess.Popen[str], lines: list[str]) -> None:
    """A pipe that nobody reads would block the server's log."""
    assert process.stderr is not None
    for line in process.stderr:
        if len(lines) < _MAX_LINES:
            lines.append(line.rstrip())


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def own_cpu_s() -> float:
    """That this process has used so far."""
    times = os.times()
    return times.user + times.system
