"""Getting the bytes of one file from an address, a hub repository or a folder.

A fetch function fills `job.part` and returns, or raises SourceError with the reason. It knows
neither digests nor what comes next: whether the bytes are the right ones, and which source is tried
after this one, is the business of `store`. OSErrors (a full disk above all) pass through for the
same reason.

Half downloads stay in `job.part` and are continued by HTTP Range (RFC 9110, section 14).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from antiphon.models.catalogue import Source, WeightFile

CHUNK_BYTES = 1 << 20
CONNECT_S = 4.0
"""How long a host may take to show that it is there at all."""
READ_S = 60.0
"""A download that gives nothing for so long is broken off and continued anew."""
TRIES = 6
"""Connections for one file, each continuing where the last one broke."""
HUB_ENDPOINT = "https://huggingface.co"


class SourceError(Exception):
    """This source cannot give the file. `str(error)` is the reason, in a few words."""


class Progress(Protocol):
    """Who is told how far a fetch is. Called from the thread that fetches, one file at a time."""

    def start(self, file: str, total_bytes: int) -> None:
        """A transfer begins, or begins again. What is here already is advanced at once."""
        ...

    def advance(self, n_bytes: int) -> None: ...

    def done(self) -> None:
        """The transfer begun last has ended, well or not."""
        ...

    def note(self, text: str) -> None:
        """One line worth knowing, such as why a source was passed over."""
        ...


class Silent:
    """Progress for those who do not want to know."""

    def start(self, file: str, total_bytes: int) -> None: ...

    def advance(self, n_bytes: int) -> None: ...

    def done(self) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(slots=True)
class Download:
    """One file on its way: what is wanted, and where its bytes are gathered."""

    label: str
    """`entry/file`, for people."""
    file: WeightFile
    part: Path
    """Grows from nothing to the whole file; survives a broken fetch."""
    work: Path
    """Folder for packages on their way; the caller cleans it."""
    progress: Progress
    check_space: Callable[[int, str], None]
    """Raises SourceError when so many bytes, needed for the reason given, are not free."""
    downloaded_bytes: int = 0
    """What came over a network, for the report."""

    def size_bytes(self) -> int:
        """How much of the file is here."""
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def append(
        self, chunks: Iterable[bytes], at_bytes: int, on_chunk: Callable[[int], None]
    ) -> None:
        """Write `chunks` from `at_bytes` on, cutting off the rest. SourceError if too long."""
        room = self.file.size_bytes - at_bytes
        with open(self.part, "r+b" if at_bytes else "wb") as part:
            if at_bytes:
                part.seek(at_bytes)
                part.truncate()
            for chunk in chunks:
                room -= len(chunk)
                if room < 0:
                    break
                part.write(chunk)
                on_chunk(len(chunk))
        if room < 0:
            # Not worth keeping: no continuation can make it the right file.
            self.part.unlink(missing_ok=True)
            raise SourceError(f"gives more than the {self.file.size_bytes} bytes of the file")

    def arrived(self, n_bytes: int) -> None:
        """Count bytes that came over a network."""
        self.downloaded_bytes += n_bytes
        self.progress.advance(n_bytes)


class Reach:
    """Which hosts answer, asked once per process: nobody waits twice for one that is not there."""

    def __init__(self, limit_s: float = CONNECT_S) -> None:
        self._limit_s = limit_s
        self._reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def check(self, url: str) -> None:
        """Raises SourceError when the host of `url` does not answer within the limit."""
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            if origin not in self._reasons:
                self._reasons[origin] = self._ask(origin)
        if self._reasons[origin]:
            raise SourceError(self._reasons[origin])

    def _ask(self, origin: str) -> str:
        answer = ["is not in reach"]

        def ask() -> None:
            try:
                httpx.head(origin, timeout=self._limit_s)
                answer[0] = ""
            except httpx.ReadTimeout:
                answer[0] = ""  # It is there, only slow.
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
                answer[0] = f"is not in reach ({_short(error)})"

        # A thread, because looking up a name has no time limit of its own.
        thread = threading.Thread(target=ask, name="antiphon-reach", daemon=True)
        thread.start()
        thread.join(self._limit_s + 2.0)
        return answer[0]


reach = Reach()


def fetch_url(job: Download, source: Source) -> None:
    """From a plain http(s) address."""
    _download(job, source.url, {})


def fetch_hub(job: Download, source: Source) -> None:
    """From a Hugging Face repository; HF_ENDPOINT and the owner's token hold.

    The library gives the address and the token. The bytes are moved here, so that every download is
    continued, watched and shown in the same way.
    """
    endpoint = os.environ.get("HF_ENDPOINT", HUB_ENDPOINT).rstrip("/")
    reach.check(endpoint)
    try:
        from huggingface_hub import get_token, hf_hub_url
    except ImportError:
        raise SourceError("the package huggingface-hub is not installed") from None
    url = hf_hub_url(source.repo, source.path, revision=source.revision, endpoint=endpoint)
    token = get_token()
    _download(job, url, {"Authorization": f"Bearer {token}"} if token else {})


def fetch_folder(job: Download, source: Source) -> None:
    """A copy of a file in a local folder."""
    path = Path(source.folder).expanduser() / (source.path or job.file.name)
    try:
        stream = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from None
    with stream:
        size_bytes = os.fstat(stream.fileno()).st_size
        if size_bytes != job.file.size_bytes:
            raise SourceError(f"{path} has {size_bytes} bytes, not {job.file.size_bytes}")
        job.progress.start(job.label, size_bytes)
        job.append(chunks_of(stream.read), 0, job.progress.advance)


def human(n_bytes: int) -> str:
    """A size for people, in decimal units, e.g. `2.3 MB`."""
    size = float(n_bytes)
    units = ["bytes", "kB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    digits = 0 if units[0] == "bytes" or size >= 100 else 1
    return f"{size:.{digits}f} {units[0]}"


def chunks_of(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """All of a stream, piece by piece."""
    while chunk := read(CHUNK_BYTES):
        yield chunk


def _download(job: Download, url: str, headers: Mapping[str, str]) -> None:
    reach.check(url)
    job.progress.start(job.label, job.file.size_bytes)
    job.progress.advance(job.size_bytes())
    reason = ""
    for attempt in range(TRIES):
        before = job.size_bytes()
        try:
            _get(job, url, headers)
        except httpx.HTTPError as error:
            reason = _short(error)
        except httpx.InvalidURL as error:
            raise SourceError(str(error)) from None
        if job.size_bytes() == job.file.size_bytes:
            return
        if job.size_bytes() <= before:
            time.sleep(0.2 * 2**attempt)
    got = f"{job.size_bytes()} of {job.file.size_bytes} bytes"
    raise SourceError(f"broke off after {got}" + (f" ({reason})" if reason else ""))


def _get(job: Download, url: str, headers: Mapping[str, str]) -> None:
    """One connection: the rest of the file, or what comes of it."""
    have = job.size_bytes()
    asked = {**headers, "Accept-Encoding": "identity"}
    if have:
        asked["Range"] = f"bytes={have}-"
    timeout = httpx.Timeout(READ_S, connect=CONNECT_S)
    with httpx.stream("GET", url, headers=asked, timeout=timeout, follow_redirects=True) as reply:
        if reply.status_code == 416 or (reply.status_code == 206 and not _continues(reply, have)):
            job.part.unlink(missing_ok=True)
            return
        if reply.status_code not in (200, 206):
            raise SourceError(f"answers {reply.status_code} {reply.reason_phrase}".strip())
        at_bytes = have if reply.status_code == 206 else 0
        _check_length(reply, job.file.size_bytes - at_bytes)
        # As the pieces come: gathered into larger ones, the last of them is lost when it breaks off.
        job.append(reply.iter_raw(), at_bytes, job.arrived)


def _continues(reply: httpx.Response, have: int) -> bool:
    span: str = reply.headers.get("content-range", "")
    return span.startswith(f"bytes {have}-")


def _check_length(reply: httpx.Response, expected_bytes: int) -> None:
    """A sign-in page or an error page is known by its length before it is written over anything."""
    length = reply.headers.get("content-length", "")
    if length.isdigit() and int(length) != expected_bytes:
        raise SourceError(f"gives {length} bytes where {expected_bytes} were expected")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__
