"""What `antiphon doctor` says of settings and of the folders they name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from antiphon.cli.doctor import check_folders, shown_settings
from antiphon.config import load, setting_names


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("ANTIPHON_", "HF_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(everything: bool = False, **values: object) -> dict[str, str]:
    settings = load({name.replace("__", "."): value for name, value in values.items()})
    found = shown_settings(settings, everything=everything)
    return {finding.check.removeprefix("setting "): finding.found for finding in found}


def test_only_what_differs_is_shown() -> None:
    assert shown() == {"settings": "all at their defaults; --all shows them"}
    found = shown(server__port=9000, models__stt="a,b", conversation__auto_reply=False)
    assert found == {
        "server.port": "9000",
        "models.stt": "a, b",
        "conversation.auto_reply": "false",
    }


def test_all_of_them() -> None:
    found = shown(everything=True, server__port=9000)
    assert set(setting_names()) == set(found)
    assert found["server.port"] == "9000"
    assert found["server.host"] == "127.0.0.1  (default)"


def test_no_secret_is_shown() -> None:
    found = shown(
        endpoint__api_key="sk-very-secret",
        endpoint__base_url="http://me:sk-very-secret@host/v1",
        models__options__openai__api_key="sk-very-secret",
    )
    assert found["endpoint.api_key"] == "(set, hidden)"
    assert set(found) == {"endpoint.api_key", "endpoint.base_url", "models.options"}
    assert "very-secret" not in "".join(found.values())


def test_texts_are_one_line_of_bounded_length() -> None:
    found = shown(agent__prompt="many\nwords " * 99)["agent.prompt"]
    assert "\n" not in found
    assert len(found) < 100


def folders(**named: Path) -> dict[str, tuple[str, str, str]]:
    found = check_folders(load(dict(named)))
    return {f.check: (f.state, f.found, f.todo) for f in found}


def test_folders(place: Path) -> None:
    assert folders() == {}
    (place / "file").write_text("")
    found = folders(
        recording_dir=place, trace_dir=place / "new" / "one", debug_audio_dir=place / "file"
    )
    assert found["recording_dir"] == ("ok", f"{place} is writable", "")
    assert found["trace_dir"] == ("ok", f"{place}/new/one will be made", "")
    assert found["debug_audio_dir"][0] == "fail"
    assert found["debug_audio_dir"][2] == "set debug_audio_dir to a folder"
    assert not (place / "new").exists()


def test_a_folder_that_is_not_ours(place: Path) -> None:
    (state, what, todo) = folders(recording_dir=place / "file" / "in")["recording_dir"]
    assert state == "ok"
    (place / "file").write_text("")
    (state, what, todo) = folders(recording_dir=place / "file" / "in")["recording_dir"]
    assert (state, what) == ("fail", f"{place}/file cannot be written to")
    assert todo
