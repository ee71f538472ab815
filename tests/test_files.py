"""What lies at a path that somebody names, and who can read what is written."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from antiphon.errors import AntiphonError, ConfigError
from antiphon.files import (
    make_private,
    open_regular,
    private_folder,
    read_text,
    read_toml,
    write_private,
)

LIMIT_BYTES = 1_000


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file"),
    "folder": (Path.mkdir, "Is a directory"),
    "pipe": (os.mkfifo, "it is a pipe"),
    "zero": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "random": (lambda path: path.symlink_to("/dev/urandom"), "it is a device"),
    "full": (lambda path: path.symlink_to("/dev/full"), "it is a device"),
    "loop": (loop, "symbolic links"),
    "dangling": (lambda path: path.symlink_to("nothing"), "No such file"),
    "huge": (sparse, "too large"),
    "binary": (lambda path: path.write_bytes(b"ab\xff\xfe\x00"), "not text in UTF-8 \\(byte 3"),
    "utf-16": (lambda path: path.write_text("a = 1", "utf-16"), "not text in UTF-8"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_text_file_is_said(kind: str, tmp_path: Path) -> None:
    make, reason = HOSTILE[kind]
    path = tmp_path / "file"
    make(path)
    with pytest.raises(ConfigError, match=reason) as error:
        read_text(path, LIMIT_BYTES, ConfigError)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\udcff", "x/" * 2_000])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(AntiphonError) as error:
        read_text(tmp_path / name, LIMIT_BYTES)
    str(error.value).encode()  # can be printed
    assert len(str(error.value)) < 400


def test_what_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data, text in (
        (b"", ""),
        (b"\xef\xbb\xbfa = 1", "a = 1"),
        (b"x" * LIMIT_BYTES, "x" * 1_000),
    ):
        path.write_bytes(data)
        assert read_text(path, LIMIT_BYTES) == text
    path.write_bytes(b"x" * (LIMIT_BYTES + 1))
    with pytest.raises(AntiphonError, match="1000 bytes"):
        read_text(path, LIMIT_BYTES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    path.chmod(0)
    with pytest.raises(AntiphonError, match="Permission denied"):
        open_regular(path)


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 100_000, "a = " + "{b = " * 50_000, "a = 1\na = 2", "=", "a = " + "1" * 9_999],
)
def test_toml_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"not valid TOML|too deeply") as error:
        read_toml(path)
    assert str(path) in str(error.value)


# --- for the owner's eyes only ------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_written_for_the_owner_only(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        folder = tmp_path / "calls"
        private_folder(folder)
        write_private(folder / "new", "a")
        write_private(folder / "new", "b", append=True)
        old = folder / "old"
        old.write_text("earlier, and longer")
        old.chmod(0o666)
        write_private(old, "words")
    finally:
        os.umask(before)
    assert (mode(folder), mode(folder / "new"), mode(old)) == (0o700, 0o600, 0o600)
    assert ((folder / "new").read_text(), old.read_text()) == ("ab", "words")


def test_what_earlier_versions_left_is_closed(tmp_path: Path) -> None:
    ours, mixed = tmp_path / "ours", tmp_path / "mixed"
    for folder in (ours, mixed):
        folder.mkdir(mode=0o755)
        (folder / "a.jsonl").write_text("")
        (folder / "a.jsonl").chmod(0o644)
    other = mixed / "notes.txt"
    other.write_text("")
    other.chmod(0o644)
    (mixed / "link.jsonl").symlink_to(other)
    for folder in (ours, mixed, tmp_path / "missing"):
        make_private(folder, (".jsonl",))
    assert (mode(ours), mode(ours / "a.jsonl")) == (0o700, 0o600)
    assert (mode(mixed), mode(mixed / "a.jsonl"), mode(other)) == (0o755, 0o600, 0o644)


def test_no_reader_waits_for_a_pipe(tmp_path: Path) -> None:
    """Opening a pipe without a writer would block for ever."""
    os.mkfifo(tmp_path / "pipe")
    found: list[str] = []

    def read() -> None:
        try:
            read_text(tmp_path / "pipe", LIMIT_BYTES)
        except AntiphonError as error:
            found.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(20)
    assert "pipe" in found[0]
