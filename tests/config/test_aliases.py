"""Every variable in the tables of the replaced systems: as their users wrote it, and what becomes of it here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.config.test_config import clean, value_of  # noqa: F401

from antiphon.config import ALIASES, IGNORED, PASSED_ON, PREFIX, RENAMED, load, setting_names
from antiphon.models.ports import Kind
from antiphon.models.registry import parse_spec, shared_registry
from antiphon.server.model_loading import chains, check_models

OPTIONS = "models.options"


def option(name: str, *back_ends: str, value: Any) -> dict[str, Any]:
    return {f"{back_end}.{name}": value for back_end in back_ends}


TABLES: dict[str, dict[str, str]] = {
    "phone bot": {
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "secret",
        "HF_TOKEN": "hf_1",
        "VLLM_BASE_URL": "http://localhost:11434/v1",
        "XTTS_BASE_URL": "http://localhost:8001",
        "LLM_MODEL": "llama3.1:8b",
        "WHISPER_DEVICE": "mlx",
        "TTS_DEVICE": "mps",
        "PROXY_HOST": "name-7860-euw.devtunnels.ms",
    },
    "voice stack": {
        "KYUTAI_STT_URL": "https://a--stt.modal.run",
        "KYUTAI_TTS_URL": "wss://a--tts.modal.run",
        "KYUTAI_LLM_URL": "https://a--llm.modal.run",
    },
    "media streams": {"TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "secret"},
    "pipeline": {"ASR_MODEL": "whisper", "LLM_MODEL": "llama", "TTS_MODEL": "piper"},
    "talk backend": {
        "HOST": "0.0.0.0",
        "PORT": "8000",
        "DEBUG": "false",
        "ENVIRONMENT": "production",
        "ASR_MODEL_NAME": "openai/whisper-medium",
        "ASR_SAMPLE_RATE": "16000",
        "ASR_DEVICE": "cuda:0",
        "ASR_DTYPE": "float16",
        "LLM_MODEL_NAME": "Qwen/Qwen2.5-7B-Instruct-AWQ",
        "LLM_MAX_MODEL_LEN": "4096",
        "LLM_GPU_MEMORY_UTILIZATION": "0.35",
        "LLM_MAX_TOKENS": "256",
        "LLM_TEMPERATURE": "0.7",
        "TTS_MODEL_NAME": "kyutai/tts-1.6b-en_fr",
        "TTS_SAMPLE_RATE": "24000",
        "TTS_DEVICE": "cpu",
        "PRELOAD_MODELS": "true",
        "MODELS_CACHE_DIR": "./models",
        "ENABLE_MEMORY_EFFICIENT_LOADING": "true",
        "TRUST_REMOTE_CODE": "true",
        "CORS_ORIGINS": "http://localhost:3000,https://your-frontend.vercel.app",
        "LOG_LEVEL": "INFO",
        "HF_HOME": "./models",
        "TRANSFORMERS_CACHE": "./models",
        "HF_ENDPOINT": "https://hub.example",
    },
}

MEANT: list[tuple[str, str, dict[str, Any]]] = [
    ("HOST", "0.0.0.0", {"server.host": "0.0.0.0"}),
    ("PORT", "9001", {"server.port": 9001}),
    ("DEBUG", "true", {"server.debug": True}),
    ("ENVIRONMENT", "production", {"server.log_format": "json"}),
    ("ENVIRONMENT", "development", {"server.log_format": "pretty"}),
    ("LOG_LEVEL", "DEBUG", {"server.debug": True}),
    ("LOG_LEVEL", "INFO", {"server.debug": False}),
    ("CORS_ORIGINS", "http://a,http://b", {"server.cors_origins": ("http://a", "http://b")}),
    ("ASR_MODEL", "whisper", {"models.stt": ("faster-whisper", "moonshine")}),
    ("ASR_MODEL", "nemo", {"models.stt": ("nemo",)}),
    (
        "ASR_MODEL_NAME",
        "openai/whisper-medium",
        {"models.stt": ("transformers-whisper:openai/whisper-medium", "moonshine")},
    ),
    (
        "ASR_MODEL_NAME",
        "kyutai/stt-2.6b-en-trfs",
        {"models.stt": ("kyutai-transformers:kyutai/stt-2.6b-en-trfs", "moonshine")},
    ),
    ("ASR_DEVICE", "cuda:0", option("device", "faster-whisper", value="cuda:0")),
    ("ASR_DEVICE", "cpu", option("device", "kyutai-transformers", value="cpu")),
    ("ASR_DTYPE", "bfloat16", option("dtype", "transformers-whisper", value="bfloat16")),
    ("ASR_DTYPE", "float32", option("compute", "faster-whisper", value="float32")),
    ("WHISPER_DEVICE", "mlx", {"models.stt": ("mlx-whisper", "moonshine")}),
    ("WHISPER_DEVICE", "cuda", {"models.stt": ("faster-whisper", "moonshine")}),
    ("WHISPER_DEVICE", "cpu", option("device", "faster-whisper", value="cpu")),
    ("LLM_MODEL", "llama3.1:8b", {"endpoint.model": "llama3.1:8b"}),
    (
        "LLM_MODEL",
        "gpt4omini",
        {"models.llm": ("openai:gpt-4o-mini",), "endpoint.model": ""},
    ),
    ("LLM_MODEL", "phi3", {"models.llm": ("transformers:phi3",)}),
    ("LLM_MODEL_NAME", "a/b", {"models.llm": ("vllm-engine:a/b", "llamacpp")}),
    ("LLM_MAX_MODEL_LEN", "4096", option("context_tokens", "llamacpp", "transformers", value=4096)),
    ("LLM_MAX_MODEL_LEN", "512", option("max_model_len", "vllm-engine", value=512)),
    (
        "LLM_GPU_MEMORY_UTILIZATION",
        "0.35",
        option("gpu_memory_utilization", "vllm-engine", value=0.35),
    ),
    ("LLM_MAX_TOKENS", "99", {"agent.max_tokens": 99}),
    ("LLM_TEMPERATURE", "0.9", {"agent.temperature": 0.9}),
    ("TTS_MODEL", "piper", {"models.tts": ("piper",)}),
    ("TTS_MODEL", "chatterbox", {"models.tts": ("chatterbox",)}),
    (
        "TTS_MODEL_NAME",
        "kyutai/tts-1.6b-en_fr",
        {"models.tts": ("moshi:kyutai/tts-1.6b-en_fr", "piper")},
    ),
    ("TTS_MODEL_NAME", "coqui/XTTS-v2", {"models.tts": ("xtts", "piper")}),
    (
        "TTS_MODEL_NAME",
        "tts_models/en/ljspeech/tacotron2-DDC",
        {"models.tts": ("coqui:tts_models/en/ljspeech/tacotron2-DDC", "piper")},
    ),
    ("TTS_MODEL_NAME", "edge-tts", {"models.tts": ("edge-tts", "piper")}),
    ("TTS_MODEL_NAME", "piper", {"models.tts": ("piper",)}),
    ("TTS_DEVICE", "mps", option("device", "xtts", "coqui", value="mps")),
    ("VLLM_BASE_URL", "http://x/v1", {"endpoint.base_url": "http://x/v1"}),
    ("OPENAI_BASE_URL", "http://y/v1", {"endpoint.base_url": "http://y/v1"}),
    ("OPENAI_API_KEY", "sk-2", {"endpoint.api_key": "sk-2"}),
    ("XTTS_BASE_URL", "http://x", option("base_url", "xtts-server", value="http://x")),
    ("XTTS_BASE_URL", "http://x", {"models.tts": ("xtts-server", "piper")}),
    ("KYUTAI_STT_URL", "https://x", {f"{OPTIONS}.stt": {"moshi-server": {"base_url": "wss://x"}}}),
    ("KYUTAI_STT_URL", "ws://x", {"models.stt": ("moshi-server", "moonshine")}),
    ("KYUTAI_TTS_URL", "http://x", {f"{OPTIONS}.tts": {"moshi-server": {"base_url": "ws://x"}}}),
    ("KYUTAI_TTS_URL", "ws://x", {"models.tts": ("moshi-server", "piper")}),
    ("KYUTAI_LLM_URL", "https://x/", {"endpoint.base_url": "https://x/v1"}),
    ("KYUTAI_LLM_URL", "http://x, http://y/v1", {"endpoint.base_url": "http://x/v1,http://y/v1"}),
    ("KYUTAI_LLM_MODEL", "gemma", {"endpoint.model": "gemma"}),
    ("KYUTAI_LLM_API_KEY", "k", {"endpoint.api_key": "k"}),
    ("KYUTAI_API_KEY", "k", option("key", "moshi-server", value="k")),
    ("PRELOAD_MODELS", "false", {"models.preload": False}),
    ("ENABLE_MEMORY_EFFICIENT_LOADING", "false", {"models.sequential": False}),
    ("TRUST_REMOTE_CODE", "true", {"models.trust_remote_code": True}),
    ("ANTIPHON_API_KEY", "sk-one", {"security.api_key": "sk-one"}),
    ("TWILIO_ACCOUNT_SID", "AC1", {"phone.account_sid": "AC1"}),
    ("TWILIO_AUTH_TOKEN", "secret", {"phone.auth_token": "secret"}),
    ("TWILIO_PHONE_NUMBER", "+15550199", {"phone.from_number": "+15550199"}),
    ("PUBLIC_URL", "https://v.example/", {"phone.public_url": "https://v.example"}),
    ("PROXY_HOST", "v.example", {"phone.public_url": "https://v.example"}),
]


@pytest.mark.parametrize("where", ["environment", ".env"])
@pytest.mark.parametrize(("name", "text", "meant"), MEANT, ids=[f"{n}={t}" for n, t, _ in MEANT])
def test_each_variable(
    name: str,
    text: str,
    meant: dict[str, Any],
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if where == ".env":
        (tmp_path / ".env").write_text(f"SOMETHING_ELSE=1\n{name}={text}\n")
    else:
        monkeypatch.setenv(name, text)
    settings = load(folder=tmp_path)
    for path, expected in meant.items():
        found = _found(settings, path)
        assert getattr(found, "get_secret_value", lambda found=found: found)() == expected


def _found(settings: Any, path: str) -> Any:
    """Also `backend.option`, of the options of back ends."""
    if path.startswith(f"{OPTIONS}."):
        return settings.models.options[path.removeprefix(f"{OPTIONS}.")]
    section, _, name = path.partition(".")
    if section in type(settings).model_fields:
        return value_of(settings, path)
    return settings.models.options[section][name]


def test_no_variable_was_forgotten() -> None:
    assert {name for name, _, _ in MEANT} == set(ALIASES)
    everything = {*ALIASES, *IGNORED, *PASSED_ON}
    for system, table in TABLES.items():
        assert not set(table) - everything, system
    assert len(everything) == len(ALIASES) + len(IGNORED) + len(PASSED_ON)


@pytest.mark.parametrize("system", TABLES)
def test_the_environment_of_a_whole_system(system: str, tmp_path: Path) -> None:
    """Its `.env` is taken over as it is, and gives models that there are, with options that they take."""
    lines = [f"{name}={value}" for name, value in TABLES[system].items()]
    (tmp_path / ".env").write_text("\n".join(lines) + "\n")
    settings = load(folder=tmp_path)
    check_models(settings)
    for chain in chains(settings):
        for spec in chain.specs:
            shared_registry().create(
                chain.kind,
                spec,
                None,
                chain.options.get(parse_spec(spec)[0], {}),  # type: ignore[arg-type]
            )


def test_what_the_libraries_read_is_handed_on(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "HF_TOKEN=hf_1\nTRANSFORMERS_CACHE=/hub\nMODELS_CACHE_DIR=/models\nANTIPHON_OFFLINE=1\nX=y\n"
    )
    before = "X" in os.environ
    load(folder=tmp_path)
    assert (os.environ["HF_TOKEN"], os.environ["HF_HUB_CACHE"]) == ("hf_1", "/hub")
    assert (os.environ["MODELS_CACHE_DIR"], os.environ["ANTIPHON_OFFLINE"]) == ("/models", "1")
    assert ("X" in os.environ) == before


def test_the_environment_goes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_2")
    (tmp_path / ".env").write_text("HF_TOKEN=hf_1\n")
    load(folder=tmp_path)
    assert os.environ["HF_TOKEN"] == "hf_2"


def test_what_is_said_goes_before_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XTTS_BASE_URL", "http://x")
    monkeypatch.setenv("TTS_MODEL", "kokoro")
    assert load(folder=tmp_path).models.tts == ("kokoro",)
    monkeypatch.delenv("TTS_MODEL")
    (tmp_path / "antiphon.toml").write_text('[models]\ntts = ["coqui"]\n')
    assert load(folder=tmp_path).models.tts == ("coqui",)
    monkeypatch.setenv("ANTIPHON_MODELS__TTS", "espeak")
    assert load(folder=tmp_path).models.tts == ("espeak",)
    monkeypatch.setenv("LLM_MODEL_NAME", "a/b")
    monkeypatch.setenv("VLLM_BASE_URL", "http://y/v1")
    settings = load(folder=tmp_path)
    (llm,) = [chain for chain in chains(settings) if chain.kind is Kind.LLM]
    assert (llm.specs, settings.endpoint.model) == (("openai", "llamacpp"), "a/b")


def test_a_hub_may_run_code_where_it_is_trusted(tmp_path: Path) -> None:
    for trusted, options in ((True, {"trust_remote_code": True}), (False, {})):
        settings = load(
            {"models.trust_remote_code": trusted, "models.llm": "transformers:phi3"},
            folder=tmp_path,
        )
        (llm,) = [chain for chain in chains(settings) if chain.kind is Kind.LLM]
        assert llm.options.get("transformers", {}) == options


def test_back_ends_that_are_named_exist() -> None:
    """A variable must not choose what nobody wrote."""
    for _, _, meant in MEANT:
        for path in _CHAINS & set(meant):
            for spec in meant[path]:
                shared_registry().find(Kind(path.partition(".")[2]), parse_spec(spec)[0])


_CHAINS = {"models.stt", "models.llm", "models.tts"}


@pytest.mark.parametrize("old", RENAMED)
@pytest.mark.parametrize("place", ["overrides", "environment", ".env", "antiphon.toml"])
def test_a_renamed_setting_works_under_its_old_name_with_a_warning(
    old: str,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    variable = PREFIX + old.upper().replace(".", "__")
    section, _, name = old.partition(".")
    overrides: dict[str, Any] = {}
    match place:
        case "overrides":
            overrides[old] = "1"
        case "environment":
            monkeypatch.setenv(variable, "1")
        case ".env":
            (tmp_path / ".env").write_text(f"{variable}=1\n")
        case _:
            (tmp_path / place).write_text(f"[{section}]\n{name} = 1\n")
    assert value_of(load(overrides, folder=tmp_path), RENAMED[old]) == 1
    assert old in caplog.text
    assert RENAMED[old] in caplog.text


def test_the_name_now_goes_before_the_old_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "antiphon.toml").write_text(
        "[conversation]\nplayback_grace_ms = 1\nplayout_grace_ms = 2\n"
    )
    assert load(folder=tmp_path).conversation.playout_grace_ms == 2
    monkeypatch.setenv("ANTIPHON_CONVERSATION__PLAYBACK_GRACE_MS", "3")  # nearer than the file
    assert load(folder=tmp_path).conversation.playout_grace_ms == 3


def test_every_renamed_setting_exists_under_its_name_now() -> None:
    assert set(RENAMED.values()) <= set(setting_names())
    assert not set(RENAMED) & set(setting_names())
