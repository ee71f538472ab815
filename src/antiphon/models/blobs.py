"""Files by digest in one folder: whole, checked and linked to their names. The disk of `store`.

Knows the digest, size and name of a file and nothing of where files come from. Nothing here takes
the store's lock: what changes the folder is called with the lock held.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from antiphon.models.catalogue import CatalogueEntry, WeightFile
from antiphon.models.weight_sources import CHUNK_BYTES


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class Blobs:
    """The files under `home`; see `store` for the layout."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def blob(self, file: WeightFile) -> Path:
        return self.home / "blobs" / file.sha256

    def part(self, file: WeightFile) -> Path:
        """Where the file grows until it is whole."""
        return self.home / "partial" / f"{file.sha256}.part"

    def path(self, entry: CatalogueEntry, file: WeightFile) -> Path:
        """Where the file lies under its own name."""
        return self.home / "models" / entry.name / file.name

    def whole(self, file: WeightFile) -> bool:
        """There, and of the right size."""
        try:
            return self.blob(file).stat().st_size == file.size_bytes
        except OSError:
            return False

    def checked(self, file: WeightFile) -> bool:
        """Whole, and with the right digest; read again only if changed since the last look."""
        if not self.whole(file):
            return False
        with contextlib.suppress(OSError):
            if self._stamp(file).read_text("ascii") == self._mark(file):
                return True
        return not self.fault(file)

    def fault(self, file: WeightFile) -> str:
        """Read the whole file: the digest it has instead of its own, empty when it is right."""
        got = digest_of(self.blob(file))
        if got != file.sha256:
            return got
        # A folder that cannot be written to can still be used; it is only read more often.
        with contextlib.suppress(OSError):
            self._stamp(file).write_text(self._mark(file), "ascii")
        return ""

    def accept(self, file: WeightFile) -> str:
        """Take the fetched part in if its digest is right; else delete it and return its digest."""
        part = self.part(file)
        # What is on the disk is what is checked, not what went through memory on its way there.
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
        got = digest_of(part)
        if got != file.sha256:
            part.unlink()
            return got
        # Shared by hard links: nobody may write into it by mistake.
        part.chmod(0o444)
        blob = self.blob(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, blob)
        self._stamp(file).write_text(self._mark(file), "ascii")
        return ""

    def linked(self, entry: CatalogueEntry, file: WeightFile) -> bool:
        """The file's own name leads to the blob, by link or as a copy."""
        try:
            named, blob = self.path(entry, file).stat(), self.blob(file).stat()
        except OSError:
            return False
        if (named.st_dev, named.st_ino) == (blob.st_dev, blob.st_ino):
            return True
        return (named.st_size, named.st_mtime_ns) == (blob.st_size, blob.st_mtime_ns)

    def link(self, entry: CatalogueEntry, file: WeightFile) -> None:
        """Give the blob its own name: a hard link, else a symbolic link, else a copy."""
        if self.linked(entry, file):
            return
        path, blob = self.path(entry, file), self.blob(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        try:
            os.link(blob, new)
        except OSError:
            try:
                new.symlink_to(os.path.relpath(blob, path.parent))
            except OSError:
                shutil.copy2(blob, new)
        os.replace(new, path)

    def drop(self, file: WeightFile) -> int:
        """Remove the blob and what is half there of it; returns the bytes freed."""
        freed_bytes = 0
        part = self.part(file)
        for path in (self.blob(file), part, part.with_suffix(".join"), self._stamp(file)):
            with contextlib.suppress(FileNotFoundError):
                size_bytes = path.stat().st_size
                path.unlink()
                freed_bytes += size_bytes
        return freed_bytes

    def _stamp(self, file: WeightFile) -> Path:
        return self.blob(file).with_suffix(".ok")

    def _mark(self, file: WeightFile) -> str:
        status = self.blob(file).stat()
        return f"{status.st_size} {status.st_mtime_ns}\n"
