"""The store with addresses, hubs and folders, against a real server on the loopback that breaks off."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from antiphon.errors import WeightsError
from antiphon.models import blobs, weight_sources
from antiphon.models.catalogue import Catalogue, CatalogueEntry, Source, WeightFile
from antiphon.models.ports import Kind
from antiphon.models.store import WeightStore
from antiphon.models.weight_sources import Reach, SourceError

DATA = random.Random(1).randbytes(3_000_000)
OTHER = random.Random(2).randbytes(3_000_000)


class Server(ThreadingHTTPServer):
    """Serves `data` under every path; the next replies are cut off after the bytes in `cuts`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.data: dict[str, bytes] = {"/f": DATA}
        self.cuts: list[int] = []
        self.ranges: list[str] = []
        self.paths: list[str] = []
        self.tokens: list[str | None] = []
        self.with_ranges = True
        self.asked = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up on a page too long are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.send_response(204)
        self.end_headers()

    def do_GET(self) -> None:
        span = self.headers.get("Range", "")
        self.server.ranges.append(span)
        self.server.paths.append(self.path)
        self.server.tokens.append(self.headers.get("Authorization"))
        self.server.asked.set()
        assert self.server.go_on.wait(30)
        data = self.server.data.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = 0
        if span and self.server.with_ranges:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(data)
        self.wfile.write(data[start : start + cut])

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ANTIPHON_", "HF_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("MODELS_CACHE_DIR", raising=False)
    # What the process remembers of hosts must not pass from test to test: ports are used again.
    monkeypatch.setattr(weight_sources, "reach", Reach())


class Notes(weight_sources.Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def weight(*places: Source, data: bytes = DATA, name: str = "f.bin") -> WeightFile:
    return WeightFile(name, hashlib.sha256(data).hexdigest(), len(data), places)


def catalogue(*files: WeightFile, name: str = "m") -> Catalogue:
    return Catalogue([CatalogueEntry(name, Kind.VAD, name, "MIT", files, default=True)])


def url_store(home: Path, *urls: str) -> WeightStore:
    file = weight(*(Source("url", url=url) for url in urls))
    return WeightStore(home, catalogue=catalogue(file))


def part_of(home: Path) -> Path:
    return home / "partial" / f"{hashlib.sha256(DATA).hexdigest()}.part"


def closed_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# --- fetching ----------------------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_found_under_its_name(tmp_path: Path, server: Server) -> None:
    store = url_store(tmp_path, f"{server.url}/f")
    assert store.state("m") == "missing"
    assert store.files("m") == {"f.bin": tmp_path / "models" / "m" / "f.bin"}
    assert store.files("m")["f.bin"].read_bytes() == DATA
    assert store.state("m") == "present"
    assert server.paths == ["/f"]
    assert not list((tmp_path / "partial").iterdir())


def test_a_second_start_reads_no_file(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url_store(tmp_path, f"{server.url}/f").pull()

    def read(path: Path) -> str:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(blobs, "digest_of", read)
    assert url_store(tmp_path, f"{server.url}/f").pull().fetched == ()


def test_a_broken_download_is_continued(tmp_path: Path, server: Server) -> None:
    server.cuts = [1_200_000, 700_000]
    report = url_store(tmp_path, f"{server.url}/f").pull()
    assert report.downloaded_bytes == len(DATA)
    assert report.fetched == ("m/f.bin",)
    assert server.ranges == ["", "bytes=1200000-", "bytes=1900000-"]


def test_half_a_download_is_never_whole_and_the_next_pull_continues_it(
    tmp_path: Path, server: Server
) -> None:
    server.cuts = [1_000, 1, 1, 1, 1, 1]
    store = url_store(tmp_path, f"{server.url}/f")
    with pytest.raises(WeightsError, match="broke off after 1005 of 3000000 bytes"):
        store.files("m")
    assert store.state("m") == "partial"
    assert not (tmp_path / "models" / "m").exists()
    assert store.files("m")["f.bin"].read_bytes() == DATA
    assert server.ranges[-1] == "bytes=1005-"


def test_a_server_without_ranges_starts_over(tmp_path: Path, server: Server) -> None:
    server.cuts, server.with_ranges = [1_200_000], False
    assert url_store(tmp_path, f"{server.url}/f").files("m")["f.bin"].read_bytes() == DATA


def test_a_wrong_first_half_is_thrown_away(tmp_path: Path, server: Server) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(OTHER[:1000])
    assert url_store(tmp_path, f"{server.url}/f").files("m")["f.bin"].read_bytes() == DATA
    assert server.ranges == ["bytes=1000-", ""]


@pytest.mark.parametrize("left", [DATA, OTHER, DATA + b"x"], ids=["whole", "wrong", "too long"])
def test_what_a_killed_process_left_is_checked(tmp_path: Path, server: Server, left: bytes) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).write_bytes(left)
    assert url_store(tmp_path, f"{server.url}/f").files("m")["f.bin"].read_bytes() == DATA
    assert server.paths == ([] if left == DATA else ["/f"])


@pytest.mark.parametrize(
    ("served", "reason"),
    [
        (None, "answers 404"),
        (b"<html>please sign in</html>", "gives 27 bytes where 3000000 were expected"),
        (DATA + b"more", "gives 3000004 bytes"),
        (OTHER, f"sha256 wanted {hashlib.sha256(DATA).hexdigest()}"),
    ],
    ids=["not there", "a page", "too long", "wrong digest"],
)
def test_a_bad_source_is_passed_over_for_the_next(
    tmp_path: Path, server: Server, served: bytes | None, reason: str
) -> None:
    if served is not None:
        server.data["/bad"] = served
    notes = Notes()
    bad, good = Source("url", url=f"{server.url}/bad"), Source("url", url=f"{server.url}/f")
    store = WeightStore(tmp_path, notes, catalogue=catalogue(weight(bad, good)))
    assert store.files("m")["f.bin"].read_bytes() == DATA
    assert len(notes.lines) == 1
    assert reason in notes.lines[0]

    alone = url_store(tmp_path / "alone", f"{server.url}/bad")
    with pytest.raises(WeightsError, match=reason) as caught:
        alone.files("m")
    assert "\n" not in str(caught.value)
    assert alone.state("m") == "missing", "nothing wrong is kept"


def test_a_wrong_digest_names_both(tmp_path: Path, server: Server) -> None:
    server.data["/f"] = OTHER
    with pytest.raises(WeightsError) as caught:
        url_store(tmp_path, f"{server.url}/f").files("m")
    assert hashlib.sha256(DATA).hexdigest() in str(caught.value)
    assert f"got {hashlib.sha256(OTHER).hexdigest()}" in str(caught.value)


# --- hubs and networks -------------------------------------------------------------------------------


def test_a_hub_file_comes_from_the_owners_endpoint(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.data["/owner/name/resolve/v1/dir/f.bin"] = DATA
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub = Source("hub", repo="owner/name", revision="v1", path="dir/f.bin")
    store = WeightStore(tmp_path, catalogue=catalogue(weight(hub)))
    assert store.files("m")["f.bin"].read_bytes() == DATA
    assert server.tokens == ["Bearer hf_secret"]


def test_no_network_says_how_to_bring_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", closed_url())
    notes = Notes()
    hub = Source("hub", repo="owner/name", path="f.bin")
    store = WeightStore(tmp_path, notes, catalogue=catalogue(weight(hub)))
    with pytest.raises(WeightsError) as caught:
        store.files("m")
    text = str(caught.value)
    assert "hub owner/name: is not in reach" in text
    assert str(tmp_path / "models" / "m" / "f.bin") in text
    assert "ANTIPHON_OFFLINE" in text
    assert "\n" not in text


def test_a_host_is_asked_once_per_process(server: Server) -> None:
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{late.getsockname()[1]}/f"
        reach = Reach()
        with pytest.raises(SourceError, match="not in reach"):
            reach.check(url)
        late.listen()
        with pytest.raises(SourceError, match="not in reach"):
            reach.check(url)
    reach.check(server.url)


def test_a_host_that_connects_and_says_nothing_is_there() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        Reach(0.1).check(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("variable", ["ANTIPHON_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_touches_no_network(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    store = url_store(tmp_path, f"{server.url}/f")
    with pytest.raises(WeightsError, match=f"{variable}=1 is set") as caught:
        store.files("m")
    assert str(tmp_path / "models" / "m" / "f.bin") in str(caught.value)
    assert server.paths == []


def test_the_models_folder_comes_before_the_network(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f.bin").write_bytes(DATA)
    monkeypatch.setenv("ANTIPHON_MODELS_DIR", str(tmp_path))
    assert url_store(tmp_path / "home", f"{server.url}/f").pull().downloaded_bytes == 0
    assert server.paths == []


# --- the disk ----------------------------------------------------------------------------------------


def test_too_little_room_is_known_before_the_first_byte(tmp_path: Path, server: Server) -> None:
    file = weight(Source("url", url=f"{server.url}/f"))
    store = WeightStore(tmp_path, catalogue=catalogue(file), free_bytes=lambda _folder: 2_999_999)
    with pytest.raises(WeightsError, match=r"not enough room.*3\.0 MB more are needed"):
        store.files("m")
    assert server.paths == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_fills_up_on_the_way(tmp_path: Path, server: Server) -> None:
    part_of(tmp_path).parent.mkdir(parents=True)
    part_of(tmp_path).symlink_to("/dev/full")
    store = url_store(tmp_path, f"{server.url}/f")
    with pytest.raises(WeightsError, match=r"not enough room.*3\.0 MB more are needed"):
        store.files("m")
    assert store.state("m") != "present"
    part_of(tmp_path).unlink(missing_ok=True)
    assert store.files("m")["f.bin"].read_bytes() == DATA


# --- several at once ---------------------------------------------------------------------------------

PULL = """
import sys
from pathlib import Path
from antiphon.cli.weights import LineProgress
from antiphon.models.catalogue import load_catalogue
from antiphon.models.store import WeightStore
from rich.console import Console
store = WeightStore(Path(sys.argv[1]), LineProgress(Console()), catalogue=load_catalogue(sys.argv[2]))
print("fetched", len(store.pull(["m"]).fetched))
"""


def test_two_processes_pull_once(tmp_path: Path, server: Server) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[[entry]]\nname = "m"\nkind = "vad"\n[[entry.files]]\nname = "f.bin"\n'
        f'sha256 = "{hashlib.sha256(DATA).hexdigest()}"\nsize_bytes = {len(DATA)}\n'
        f'sources = [{{ kind = "url", url = "{server.url}/f" }}]\n'
    )
    command = [sys.executable, "-c", PULL, str(tmp_path / "home"), str(mine)]
    server.go_on.clear()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert server.asked.wait(30), "the first process holds the lock and waits for the server"
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
            assert second.stdout is not None
            assert "another process" in second.stdout.readline()
            server.go_on.set()
            assert "fetched 0" in second.communicate()[0]
        assert "fetched 1" in first.communicate()[0]
    assert server.paths == ["/f"]


def test_threads_pull_once(tmp_path: Path, server: Server) -> None:
    store = url_store(tmp_path, f"{server.url}/f")
    threads = [threading.Thread(target=store.files, args=("m",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.paths == ["/f"]
