"""Keys as they are kept, what each may use, and client secrets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.cli.support import SCRIPTED, Command
from tests.protocols.openai_http.support import Clock
from tests.support import settings

from antiphon.config import load
from antiphon.errors import ConfigError
from antiphon.server import client_secrets
from antiphon.server.client_secrets import ClientSecrets, Pinned
from antiphon.server.http_errors import RequestRefused
from antiphon.server.keys import KeyBook, add_key, digest_of, new_key, read_keys, remove_key
from antiphon.server.usage import UsageLedger, UsageLimits

# --- keys as they are kept ------------------------------------------------------------------------


def test_a_file_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    clear, key = add_key(path, "phone", UsageLimits(2, 3, 4))
    other, _ = add_key(path, "web")
    assert path.stat().st_mode & 0o777 == 0o600
    assert clear not in path.read_text()
    assert len(clear) > 50
    assert clear != other
    assert read_keys(path)[0] == key
    assert read_keys(path)[0].limits == UsageLimits(2, 3, 4)
    with pytest.raises(ConfigError, match="already"):
        add_key(path, "web")
    with pytest.raises(ConfigError, match="did you mean 'phone'"):
        remove_key(path, "phon")
    remove_key(path, "phone")
    assert [k.name for k in read_keys(path)] == ["web"]
    assert [p.name for p in path.parent.iterdir()] == ["keys.json"]
    with pytest.raises(ConfigError, match="no name for a key"):
        new_key("a b")


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"keys": [{"name": "a", "sha256": "short"}]}', '{"keys": [5]}']
)
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match="not a file of `antiphon keys`"):
        read_keys(path)


def test_keys_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clear, key = new_key("web")
    monkeypatch.setenv("ANTIPHON_API_KEY", "first-key, second-key")
    chosen = load({"security.keys": key.setting}, folder=tmp_path)
    assert "first-key" not in repr(chosen)

    async def main() -> None:
        book = KeyBook(chosen.security)
        assert book.required
        names = [(await book.find(k) or key).name for k in ("first-key", "second-key", clear)]
        assert names == ["default", "default-2", "web"]
        for wrong in ("", "third-key", clear[:-1], clear + "a", "x" * 10_000, "\udcff"):
            assert await book.find(wrong) is None

    asyncio.run(main())
    with pytest.raises(ConfigError, match="entry 1 is not name=sha256") as found:
        load({"security.keys": "sk-in-clear-text"}, folder=tmp_path)
    assert "clear-text" not in str(found.value)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "antiphon.toml").write_text(SCRIPTED)
    command = Command(tmp_path)
    made = command("keys", "create", "phone", "--max-sessions", "2")
    clear = made.stdout.strip()
    assert clear.startswith("sk-antiphon-")
    (key,) = read_keys(tmp_path / "antiphon-keys.json")
    assert key.digest == digest_of(clear)
    assert key.limits == UsageLimits(max_sessions=2)
    listed = command("keys", "list")
    assert "phone" in listed.stdout
    assert "2 calls, any min/day" in listed.stdout
    assert key.digest not in listed.stdout
    again = command("keys", "create", "phone")
    assert (again.returncode, again.stdout) == (1, "")
    assert command("keys", "revoke", "phone").returncode == 0
    assert read_keys(tmp_path / "antiphon-keys.json") == ()


# --- limits ---------------------------------------------------------------------------------------


def test_requests_per_minute() -> None:
    clock = Clock()
    ledger, limits = UsageLedger(clock), UsageLimits(requests_per_minute=2)
    ledger.note_request("a", limits)
    clock.now_s += 30
    ledger.note_request("a", limits)
    ledger.note_request("b", limits)
    with pytest.raises(RequestRefused, match="2 requests a minute; try again in 30 s") as found:
        ledger.note_request("a", limits)
    assert (found.value.status, found.value.headers["Retry-After"]) == (429, "30")
    clock.now_s += 30
    ledger.note_request("a", limits)
    for _ in range(100):
        ledger.note_request("c", UsageLimits())


def test_minutes_per_day() -> None:
    clock = Clock(1_800_000_000 - 1_800_000_000 % 86_400)
    ledger, limits = UsageLedger(clock), UsageLimits(minutes_per_day=2)
    with ledger.session("a", limits) as seat:
        assert seat.left_s == 120
        clock.now_s += 70
        assert ledger.left_s("a", limits) == 50
    ledger.spend("a", 20)
    with ledger.session("a", limits) as seat:
        assert seat.left_s == 30
    ledger.spend("a", 30)
    with (
        pytest.raises(RequestRefused, match="2 minutes of today") as found,
        ledger.session("a", limits),
    ):
        pass
    assert found.value.headers["x-should-retry"] == "false"
    clock.now_s += 86_400
    assert ledger.check_left("a", limits) == 120


def test_sessions_at_a_time() -> None:
    ledger, limits = UsageLedger(Clock()), UsageLimits(max_sessions=1)
    with (
        ledger.session("a", limits),
        pytest.raises(RequestRefused, match="1 calls at a time"),
        ledger.session("a", limits),
    ):
        pass
    with ledger.session("a", limits):
        assert ledger.sessions("a") == 1
    assert ledger.sessions("a") == 0


# --- client secrets -------------------------------------------------------------------------------


def test_a_secret_expires_and_the_store_is_bounded() -> None:
    clock = Clock()
    store = ClientSecrets(clock, max_secrets=2)
    clear, expires_at = store.create(None, Pinned({"voice": "a"}), 60)
    assert clear.startswith(client_secrets.PREFIX)
    assert expires_at == clock.now_s + 60
    found = store.find(clear)
    assert found is not None
    assert found.pinned.session == {"voice": "a"}
    store.create(None, Pinned())
    with pytest.raises(RequestRefused, match="too many client secrets"):
        store.create(None, Pinned())
    clock.now_s += 60
    assert store.find(clear) is None
    store.create(None, Pinned())
    assert len(store) == 2


def test_settings_do_not_show_a_key(tmp_path: Path) -> None:
    shown = repr(settings(tmp_path, security__api_key="sk-in-clear-text"))
    assert "clear-text" not in shown
