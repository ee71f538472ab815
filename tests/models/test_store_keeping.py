"""What the store keeps: files the owner brings, files that change, and their removal. No network."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from antiphon.errors import WeightsError
from antiphon.models.catalogue import Catalogue, CatalogueEntry, Source, WeightFile
from antiphon.models.ports import Kind
from antiphon.models.store import WeightStore, default_home

DATA = b"the right weights"
OTHER = b"the WRONG weights"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ANTIPHON_", "HF_")) or name == "MODELS_CACHE_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def media_store(tmp_path: Path) -> Path:
    """A folder with the right file: the source of these tests."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "f.bin").write_bytes(DATA)
    return folder


def weight(*places: Source) -> WeightFile:
    return WeightFile("f.bin", hashlib.sha256(DATA).hexdigest(), len(DATA), places)


def catalogue(*files: WeightFile, name: str = "m") -> Catalogue:
    return Catalogue([CatalogueEntry(name, Kind.VAD, name, "MIT", files, default=True)])


def shelf_store(home: Path, media_store: Path) -> WeightStore:
    return WeightStore(home, catalogue=catalogue(weight(Source("folder", folder=str(media_store)))))


# --- what the owner brings ---------------------------------------------------------------------------


def test_a_file_brought_by_hand_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_OFFLINE", "1")
    store = WeightStore(tmp_path, catalogue=catalogue(weight()))
    place = tmp_path / "models" / "m" / "f.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(OTHER)
    with pytest.raises(WeightsError, match="gave a wrong file"):
        store.files("m")
    place.write_bytes(DATA)
    assert store.files("m")["f.bin"].read_bytes() == DATA
    assert store.pull().fetched == ()


@pytest.mark.parametrize("under", ["", "m"])
def test_the_models_folder_is_looked_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, under: str
) -> None:
    brought = tmp_path / "brought"
    (brought / under).mkdir(parents=True)
    (brought / under / "f.bin").write_bytes(DATA)
    monkeypatch.setenv("ANTIPHON_MODELS_DIR", str(brought))
    report = WeightStore(tmp_path / "home", catalogue=catalogue(weight())).pull()
    assert report.fetched == ("m/f.bin",)
    assert report.downloaded_bytes == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file"), (b"short", "has 5 bytes, not 17"), (OTHER, "wrong file")],
)
def test_a_folder_without_the_right_file(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "f.bin").write_bytes(content)
    folder = Source("folder", folder=str(tmp_path))
    store = WeightStore(tmp_path / "home", catalogue=catalogue(weight(folder)))
    with pytest.raises(WeightsError, match=reason):
        store.files("m")


def test_a_home_that_is_no_folder(tmp_path: Path, media_store: Path) -> None:
    (tmp_path / "home").write_text("in the way")
    with pytest.raises(WeightsError, match=r"cannot use the model folder.*ANTIPHON_HOME"):
        shelf_store(tmp_path / "home", media_store).files("m")


def test_the_home_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_home().name == "antiphon"
    monkeypatch.setenv("MODELS_CACHE_DIR", "talk")
    assert default_home() == Path("talk")
    monkeypatch.setenv("ANTIPHON_HOME", "ours")
    assert default_home() == Path("ours")


# --- looking after -----------------------------------------------------------------------------------


def spoil(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(OTHER)


def test_a_file_that_was_changed_is_fetched_again(tmp_path: Path, media_store: Path) -> None:
    store = shelf_store(tmp_path / "home", media_store)
    spoil(store.files("m")["f.bin"])
    assert store.files("m")["f.bin"].read_bytes() == DATA


def test_verify_reads_everything_and_fix_removes_what_is_wrong(
    tmp_path: Path, media_store: Path
) -> None:
    store = shelf_store(tmp_path / "home", media_store)
    assert store.verify() == []
    assert [check.state for check in store.verify(["m"])] == ["missing"]
    path = store.files("m")["f.bin"]
    assert [check.state for check in store.verify()] == ["ok"]
    spoil(path)
    (check,) = store.verify()
    assert check.state == "wrong"
    assert hashlib.sha256(OTHER).hexdigest() in check.detail
    assert store.state("m") == "present", "looking changes nothing"
    store.verify(fix=True)
    assert store.state("m") == "missing"


def test_remove_keeps_what_another_entry_uses(tmp_path: Path, media_store: Path) -> None:
    file = weight(Source("folder", folder=str(media_store)))
    both = catalogue(file).merged(catalogue(file, name="n"))
    store = WeightStore(tmp_path, catalogue=both)
    assert store.pull(["m", "n"]).fetched == ("m/f.bin",)
    assert store.remove(["m"]) == 0
    assert store.files("n")["f.bin"].read_bytes() == DATA
    assert store.remove(["n"]) >= len(DATA)
    assert store.state("n") == "missing"
    with pytest.raises(WeightsError, match="no model 'o'"):
        store.remove(["o"])
