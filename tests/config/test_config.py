"""Settings: which source goes before which, every alias, and one line for whatever is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import antiphon
from antiphon.cli import examples, reference
from antiphon.config import ALIASES, OUTSIDE_SETTINGS, PASSED_ON, Settings, load, setting_names
from antiphon.config.values import hide_secrets, parse_value
from antiphon.errors import ConfigError
from antiphon.models.ports import Kind
from antiphon.server.model_loading import chains, check_models


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ANTIPHON_") or name in ALIASES:
            monkeypatch.delenv(name)
    for name in {*PASSED_ON, *PASSED_ON.values(), *OUTSIDE_SETTINGS}:
        monkeypatch.setenv(name, "")  # so that what a test leaves there is taken back
        monkeypatch.delenv(name)


def value_of(settings: Settings, path: str) -> Any:
    found: Any = settings
    for part in path.split("."):
        found = getattr(found, part)
    return found


def test_defaults(tmp_path: Path) -> None:
    settings = load(folder=tmp_path)
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 8000)
    assert settings.models.stt == ("moonshine",)
    check_models(settings)


def test_each_source_goes_before_the_one_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "antiphon.toml").write_text("[server]\nport = 1\nmax_calls = 11\nmax_call_s = 12\n")
    assert load(folder=tmp_path).server.port == 1
    (tmp_path / ".env").write_text("PORT=2\nOTHER=x\n")
    assert load(folder=tmp_path).server.port == 2
    (tmp_path / ".env").write_text(
        "PORT=2\nANTIPHON_SERVER__PORT=3\nANTIPHON_SERVER__MAX_CALLS=13\n"
    )
    assert load(folder=tmp_path).server.port == 3
    monkeypatch.setenv("PORT", "4")
    assert load(folder=tmp_path).server.port == 4
    monkeypatch.setenv("ANTIPHON_SERVER__PORT", "5")
    assert load(folder=tmp_path).server.port == 5
    settings = load({"server.port": "6"}, folder=tmp_path)
    # What a source does not name is left as it is in those below.
    assert (settings.server.port, settings.server.max_calls, settings.server.max_call_s) == (
        6,
        13,
        12,
    )


def test_the_file_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "elsewhere.toml"
    monkeypatch.setenv("ANTIPHON_CONFIG", str(other))
    with pytest.raises(ConfigError, match=r"cannot read .*elsewhere\.toml: No such file"):
        load(folder=tmp_path)
    other.write_text("[agent]\nvoice = 'anna'\n")
    assert load(folder=tmp_path).agent.voice == "anna"


def test_everything_may_be_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "antiphon.toml").write_text(
        """
        trace_dir = "traces"
        [agent]
        prompt = "You are a ship's cook."
        [models]
        llm = ["groq", "llamacpp"]
        [models.options.groq]
        model = "5"
        [models.options.stt.scripted]
        tones = { 440 = "hello" }
        [endpoint]
        api_key = "sk-1"
        [conversation]
        greeting = ""
        barge_in = "immediate"
        speech_threshold = 0.7
        min_silence_ms = 300
        """
    )
    settings = load(folder=tmp_path)
    assert settings.trace_dir == Path("traces")
    assert settings.models.llm == ("groq", "llamacpp")
    assert settings.models.options["groq"] == {"model": "5"}  # a text in the file stays one
    assert (settings.conversation.greeting, settings.conversation.barge_in) == ("", "immediate")
    assert settings.endpoint.api_key.get_secret_value() == "sk-1"


VALUES: list[tuple[str, str, Any]] = [
    ("server.debug", "true", True),
    ("server.debug", "0", False),
    ("server.max_calls", "7", 7),
    ("agent.temperature", "1", 1.0),
    ("agent.prompt", "a = b, c", "a = b, c"),
    ("agent.prompt", "", ""),
    ("models.stt", "a, b ,", ("a", "b")),
    ("models.stt", '["a", "b:c"]', ("a", "b:c")),
    ("models.turn", "", ()),
    ("models.options.piper.speed", "1.5", {"piper": {"speed": 1.5}}),
    ("models.options.piper.fast", "true", {"piper": {"fast": True}}),
    ("models.options.piper.names", "[1, 2]", {"piper": {"names": [1, 2]}}),
    ("models.options.piper.name", "joe", {"piper": {"name": "joe"}}),
    ("models.options.piper.name", '"5"', {"piper": {"name": "5"}}),
    (
        "models.options.stt.scripted.tones",
        '{"440": "hi"}',
        {"stt": {"scripted": {"tones": {"440": "hi"}}}},
    ),
    ("models.options.x", "{ a = 1 }", {"x": {"a": 1}}),
    ("conversation.reopen_turns", "no", False),
    ("conversation.idle_prompt_after_ms", "0", 0),
    ("trace_dir", "a/b", Path("a/b")),
]


@pytest.mark.parametrize(("name", "text", "expected"), VALUES)
def test_values_as_people_write_them(
    name: str, text: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "models.options" if name.startswith("models.options") else name
    assert value_of(load({name: text}, folder=tmp_path), path) == expected
    monkeypatch.setenv("ANTIPHON_" + name.upper().replace(".", "__"), text)
    assert value_of(load(folder=tmp_path), path) == expected


def test_an_endpoint_is_meant_to_be_used(tmp_path: Path) -> None:
    settings = load({"endpoint.base_url": "http://x/v1", "endpoint.api_key": "k"}, folder=tmp_path)
    (llm,) = [chain for chain in chains(settings) if chain.kind is Kind.LLM]
    assert llm.specs == ("openai", "llamacpp")
    assert llm.options["openai"] == {"base_url": "http://x/v1", "api_key": "k"}


def test_options_for_one_kind_go_before_those_for_all(tmp_path: Path) -> None:
    settings = load(
        {
            "models.stt": "scripted",
            "models.tts": "scripted",
            "models.options.scripted": {"delay_ms": 1, "fail_after": 2},
            "models.options.asr.scripted.delay_ms": "5",
        },
        folder=tmp_path,
    )
    by_kind = {chain.kind: chain.options.get("scripted") for chain in chains(settings)}
    assert by_kind[Kind.STT] == {"delay_ms": 5, "fail_after": 2}
    assert by_kind[Kind.TTS] == {"delay_ms": 1, "fail_after": 2}
    wrong = load({"models.options.tts.rate_hz": "5"}, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"models\.options\.tts takes options by back end"):
        chains(wrong)


def _toml(text: str) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        (folder / "antiphon.toml").write_text(text)
        return {}

    return prepare


def _dotenv(text: str) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        (folder / ".env").write_text(text)
        return {}

    return prepare


def _env(name: str, value: str) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setenv(name, value)
        return {}

    return prepare


def _line(**values: Any) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    return lambda folder, monkeypatch: {n.replace("__", "."): v for n, v in values.items()}


WRONG: list[tuple[Callable[[Path, pytest.MonkeyPatch], dict[str, Any]], str]] = [
    (_toml("[server]\nprot = 1"), "unknown setting 'server.prot'; did you mean 'server.port'?"),
    (_toml("[servers]\nport = 1"), "unknown setting 'servers'"),
    (_toml("[conversation]\ngreting = ''"), "did you mean 'conversation.greeting'?"),
    (_toml("[server\n"), "is not valid TOML"),
    (_toml("[server]\nport = 'x'"), "setting server.port: input should be a valid integer"),
    (_toml("[models]\nstt = 5"), "setting models.stt: "),
    (_toml("[endpoint]\napi_key = ['sk-secret']"), "setting endpoint.api_key: "),
    (_toml("endpoint = 'sk-secret'"), "setting endpoint: "),
    (_toml("[models.options]\ngroq = 'sk-secret'"), "setting models.options.groq: "),
    (
        _dotenv("ANTIPHON_SERVER__PROT=1"),
        "unknown setting ANTIPHON_SERVER__PROT in .env; did you mean",
    ),
    (_dotenv("ANTIPHON_SERVER__PORT=x"), "setting server.port: "),
    (_env("ANTIPHON_AGENT__PROMT", "x"), "did you mean 'ANTIPHON_AGENT__PROMPT'?"),
    (_env("ANTIPHON_NONSENSE", "x"), "unknown setting ANTIPHON_NONSENSE in the environment"),
    (_env("ANTIPHON_ENDPOINT", "sk-secret"), "ndpoint"),
    (_env("DEBUG", "app:*"), "(the variable DEBUG is read as well)"),
    (
        _line(server__port="70000"),
        "setting server.port: input should be less than or equal to 65535",
    ),
    (_line(zzz="1"), "unknown setting 'zzz'; the names are in docs/reference/configuration.md"),
    (_line(server="5", server__port="1"), "server has a value already"),
    (_line(server__port__x="5"), "setting server.port: "),
    (
        _line(conversation__speech_threshold="7"),
        "setting conversation.speech_threshold: must be between 0 and 1",
    ),
    (
        _line(conversation__min_silence_ms="-5"),
        "setting conversation.min_silence_ms: must not be negative",
    ),
    (_line(conversation__barge_in="now"), "setting conversation.barge_in: unknown way 'now'"),
    (_line(conversation__client_can_clear="true"), "each client says that itself"),
]


@pytest.mark.parametrize(("prepare", "reason"), WRONG, ids=[row[1][:50] for row in WRONG])
def test_whatever_is_wrong_is_one_line_without_secrets(
    prepare: Callable[[Path, pytest.MonkeyPatch], dict[str, Any]],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overrides = prepare(tmp_path, monkeypatch)
    with pytest.raises(ConfigError) as caught:
        load(overrides, folder=tmp_path)
    message = str(caught.value)
    assert reason in message
    assert "secret" not in message
    assert "\n" not in message
    assert len(message) < 250


def test_an_unknown_model_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown tts model 'pipr'; did you mean 'piper'\?"):
        check_models(load({"models.tts": "pipr"}, folder=tmp_path))


def test_secrets_are_never_printed(tmp_path: Path) -> None:
    settings = load(
        {
            "endpoint.api_key": "sk-secret",
            "models.options.groq": {
                "api_key": "sk-secret",
                "headers": {"x": "sk-secret"},
                "model": "big",
            },
        },
        folder=tmp_path,
    )
    for text in (repr(settings), str(settings), repr(settings.models), f"{settings.endpoint}"):
        assert "sk-secret" not in text
    assert "big" in repr(settings)
    assert settings.models.options["groq"]["api_key"] == "sk-secret"


def test_words_that_only_sound_like_secrets() -> None:
    assert hide_secrets({"max_tokens": 5, "api_key": "", "Token": "x"}) == {
        "max_tokens": 5,
        "api_key": "",
        "Token": "hidden",
    }


@pytest.mark.parametrize("text", ["", "a\nb", "2026-01-01x", "[1", "{", "= 5", "a = 1"])
def test_any_text_is_a_value(text: str) -> None:
    assert parse_value(text) == text


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings = load(folder=tmp_path)
    with pytest.raises(Exception, match="frozen"):
        settings.server.port = 1  # type: ignore[misc]


def test_the_reference_is_up_to_date() -> None:
    """If not: `python -m antiphon.cli.reference docs/reference/configuration.md`."""
    root = Path(antiphon.__file__).parents[2]
    assert (root / reference.PAGE).read_text(encoding="utf-8") == reference.page()
    for name in setting_names():
        assert f"`{name}`" in reference.page()
    for name, text in examples.files().items():
        assert (root / name).read_text(encoding="utf-8") == text, name


def without_sharp(text: str) -> str:
    """What a user gets who removes every "# "; settings without a default and explanations stay comments."""
    kept = (
        line.removeprefix("# ") if not line.startswith(examples.NO_DEFAULT) else line
        for line in text.splitlines()
    )
    return "\n".join(kept)


@pytest.mark.parametrize("changed", [False, True])
def test_the_examples_load(changed: bool, tmp_path: Path) -> None:
    plain = load(folder=tmp_path)
    for name, target in ((examples.TOML, "antiphon.toml"), (examples.ENV, ".env")):
        folder = tmp_path / name
        folder.mkdir()
        text = examples.files()[name]
        if changed:
            text = without_sharp(text)
            assert sum(line[:1] not in ("#", "[", "") for line in text.splitlines()) > 100
        (folder / target).write_text(text, encoding="utf-8")
        assert load(folder=folder).model_dump() == plain.model_dump()


@pytest.mark.parametrize("where", ["environment", "file", "command line"])
def test_an_old_name_of_a_setting_still_works(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = {}
    if where == "environment":
        monkeypatch.setenv("ANTIPHON_SERVER__MAX_LANE_WAIT_MS", "7")
    elif where == "file":
        (tmp_path / "antiphon.toml").write_text("[server]\nmax_lane_wait_ms = 7\n")
    else:
        overrides["server.max_lane_wait_ms"] = "7"
    assert load(overrides, folder=tmp_path).server.max_model_wait_ms == 7
    assert "server.max_model_wait_ms" in caplog.text


def test_the_new_name_of_a_setting_wins(tmp_path: Path) -> None:
    overrides = {"server.max_lane_wait_ms": 7, "server.max_model_wait_ms": 8}
    assert load(overrides, folder=tmp_path).server.max_model_wait_ms == 8
