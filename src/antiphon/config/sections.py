"""The sections of the settings: plain data with a range and a description for each value.

Knows not where values come from. A description is what `docs/reference/configuration.md` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

from antiphon.config.text import hide_secrets, names
from antiphon.core.policy import Policy
from antiphon.errors import suggest

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(names)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Anything but loopback is open to others."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0: any free one.")
    cors_origins: Names = Field((), description="Web origins that may call from another site.")
    max_calls: int = Field(32, ge=1, description="Calls at the same time; more get a busy answer.")
    max_call_s: int = Field(3600, ge=1, description="A call is ended after this many seconds.")
    max_message_bytes: int = Field(4 << 20, ge=1024, description="Largest websocket message.")
    max_upload_bytes: int = Field(64 << 20, ge=1024, description="Largest file of an HTTP request.")
    max_file_s: int = Field(600, ge=1, description="Longest audio file to be answered, in seconds.")
    max_outbox_bytes: int = Field(
        8 << 20, ge=1024, description="Unsent output per client; more means it stopped reading."
    )
    debug: bool = Field(False, description="Verbose logs.")
    log_format: Literal["pretty", "json"] = Field(
        "pretty",
        description="Logs for people, with a table after each call, or one JSON object a line.",
    )


class AgentSettings(Section):
    prompt: str = Field(
        "You are a friendly voice assistant. You are heard, not read: answer in one or two short "
        "spoken sentences, in plain words, without lists, markup, code or emoji.",
        description="System prompt.",
    )
    voice: str = Field("", description="Voice of the text-to-speech model; empty: its own.")
    language: str = Field("en", description="ISO 639-1; empty: let the models detect it.")
    temperature: float = Field(0.6, ge=0, le=2, description="How freely the model chooses words.")
    max_tokens: int = Field(200, ge=1, description="Longest reply, in tokens.")
    speed: float = Field(1.0, ge=0.5, le=2.0, description="Pace of the voice.")


class ModelsSettings(Section):
    vad: Names = Field(("silero",), description="Voice activity detection: a chain, best first.")
    turn: Names = Field(("smart-turn",), description="End-of-turn detection; empty: silence only.")
    stt: Names = Field(("moonshine",), description="Speech to text: a chain, best first.")
    llm: Names = Field(("llamacpp",), description="Language model: a chain, best first.")
    tts: Names = Field(("piper",), description="Text to speech: a chain, best first.")
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Options of a back end, by its name: `[models.options.piper]`; under a kind's name they are "
        "for that kind only: `[models.options.stt.scripted]`.",
    )
    preload: bool = Field(True, description="Load at start, not on first use.")
    sequential: bool = Field(True, description="Load one after the other, to limit peak memory.")
    trust_remote_code: bool = Field(False, description="Let hub models run code of their own.")

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Options may hold keys, and settings are printed in logs and error reports."""
        for name, value in super().__repr_args__():
            yield name, hide_secrets(value) if name == "options" else value


class AudioSettings(Section):
    denoise: int = Field(
        0,
        ge=0,
        le=4,
        description="Noise suppression before listening: 0 off, 2 is best for speech to text. Extra `denoise`.",
    )


class LlmEndpoint(Section):
    """The OpenAI-compatible endpoint, for the chain entries `openai`, `ollama`, `vllm`, `groq`."""

    base_url: str = Field("", description="For instance `http://localhost:11434/v1`.")
    api_key: SecretStr = Field(SecretStr(""), description="Sent as a bearer token; never shown.")
    model: str = Field("", description="The model's name there.")


NEGOTIATED = frozenset({"client_can_clear", "client_reports_played"})
"""Part of a policy, but said by each client and not by the owner."""
_BARGE_IN = ("confirm", "immediate")


def check_policy(policy: Policy) -> Policy:
    """The core takes any policy; an owner's slip of the pen should not become a strange conversation."""
    for field in dataclasses.fields(policy):
        name, value = field.name, getattr(policy, field.name)
        if name in NEGOTIATED and value:
            raise ValueError(f"{name}: each client says that itself; it cannot be set")
        if name.endswith("_threshold") and not 0 <= value <= 1:
            raise ValueError(f"{name}: must be between 0 and 1, got {value}")
        if type(value) is int and value < 0:
            raise ValueError(f"{name}: must not be negative, got {value}")
    if policy.barge_in not in _BARGE_IN:
        raise ValueError(
            f"barge_in: unknown way {policy.barge_in!r}{suggest(policy.barge_in, _BARGE_IN)}"
        )
    return policy
