"""The sections of the settings: plain data with a range and a description for each value.

Knows not where values come from. A description is what `docs/reference/configuration.md` says.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode

from antiphon.config.values import hide_secrets, host_name, names, web_address
from antiphon.core.policy import Policy
from antiphon.errors import suggest

HASHED_KEY = re.compile(r"(?P<name>[\w.-]{1,64})=sha256:(?P<digest>[0-9a-f]{64})")

Host = Annotated[str, AfterValidator(host_name)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(names)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _no_number_is_a_bool(cls, given: Any) -> Any:
        """pydantic takes `true` for 1: port 1 is not what anybody meant."""
        numbers = [n for n, field in cls.model_fields.items() if field.annotation in (int, float)]
        for name in numbers if isinstance(given, dict) else ():
            if isinstance(given.get(name), bool):
                raise ValueError(f"{name}: should be a number, got {given[name]}")
        return given


class ServerSettings(Section):
    host: Host = Field(
        "127.0.0.1", description="Address to listen on. Anything but loopback is open to others."
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0: any free one.")
    cors_origins: Names = Field((), description="Web origins that may call from another site.")
    trusted_proxies: Names = Field(
        (),
        description="Addresses or networks of proxies and tunnels in front of this server. Whoever comes from there is "
        "no caller of this machine, and only their forwarding headers are believed. With `phone.public_url` and no "
        "entry, one on loopback is assumed.",
    )
    max_calls: int = Field(
        32,
        ge=1,
        description="Calls (streams of a service) at the same time; more get a busy answer.",
    )
    resume_s: int = Field(
        30, ge=0, le=300, description="A page that lost its connection may come back for so long."
    )
    max_parked: int = Field(
        8, ge=0, description="Calls that wait for their page at a time; more end when it is lost."
    )
    max_loop_lag_ms: int = Field(
        150,
        ge=0,
        description="No more calls while timers run later than this, smoothed over seconds; 0: any.",
    )
    max_model_wait_ms: int = Field(
        1500,
        ge=0,
        description="No more calls while work waits longer than this for a model; 0: any.",
    )
    max_call_s: int = Field(3600, ge=1, description="A call is ended after this many seconds.")
    drain_s: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="Told to stop, the server takes no more calls and lets those that are on go on for so long.",
    )
    max_message_bytes: int = Field(24 << 20, ge=1024, description="Largest websocket message.")
    max_upload_bytes: int = Field(64 << 20, ge=1024, description="Largest file of an HTTP request.")
    max_head_bytes: int = Field(
        16 << 10, ge=1024, description="Largest head of an HTTP request, all its lines together."
    )
    head_timeout_s: float = Field(
        10.0, gt=0, description="The head of a request has to come within so many seconds."
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        description="The body of a request may take so many seconds, and one more for each KiB that has come.",
    )
    max_strangers: int = Field(
        256,
        ge=1,
        description="Connections at a time that nobody has let in yet; then idle ones make room, or more are refused.",
    )
    max_strangers_per_address: int = Field(
        64,
        ge=1,
        description="The same for one address (IPv6: a network of 64 bits), proxies that are trusted excepted.",
    )
    max_stranger_bytes: int = Field(
        64 << 10,
        ge=1024,
        description="Largest websocket message of a client that has not been let in.",
    )
    max_requests: int = Field(
        16, ge=1, description="OpenAI-compatible HTTP requests at work at a time; more get 429."
    )
    max_request_s: int = Field(
        600, ge=1, description="Such a request is given up after this many seconds."
    )
    max_file_s: int = Field(600, ge=1, description="Longest audio file to be answered, in seconds.")
    max_outbox_bytes: int = Field(
        8 << 20, ge=1024, description="Unsent output per client; more means it stopped reading."
    )
    wyoming_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="`antiphon service`: TCP port for Wyoming (Home Assistant); 0: off.",
    )
    wyoming_host: Host = Field(
        "127.0.0.1", description="Address that Wyoming listens on; any but loopback needs peers."
    )
    wyoming_peers: Names = Field(
        (), description="Addresses or networks, `10.0.0.0/24`, that may use Wyoming."
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
    presets: dict[str, str] = Field(
        default_factory=dict,
        description="Further system prompts by name, for clients to choose from: `[agent.presets]`.",
    )
    voice: str = Field("", description="Voice of the text-to-speech model; empty: its own.")
    language: str = Field("en", description="ISO 639-1; empty: let the models detect it.")
    temperature: float = Field(0.6, ge=0, le=2, description="How freely the model chooses words.")
    max_tokens: int = Field(200, ge=1, description="Longest reply, in tokens.")
    speed: float = Field(1.0, ge=0.5, le=2.0, description="Pace of the voice.")
    level: Literal["", "beginner", "intermediate", "advanced"] = Field(
        "", description="How to talk to somebody who learns the language; clients may change it."
    )
    analysis_s: float = Field(
        30.0, ge=1, le=300, description="Longest wait for the analysis after `end_conversation`."
    )


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
    speech_cache_bytes: int = Field(
        16 << 20,
        ge=0,
        description="Memory for short speech that is said again, by voice and text; 0: none.",
    )
    speech_cache_dir: Path | None = Field(
        None, description="Keep short speech here as well, over restarts."
    )
    speech_cache_dir_bytes: int = Field(
        256 << 20, ge=1 << 20, description="Largest size of that folder; the oldest goes first."
    )
    speech_cache_redis: SecretStr = Field(
        SecretStr(""),
        description="Keep short speech in this Redis as well, for several servers: `redis://host:6379/0` (extra "
        "`redis`). Never shown.",
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


PhoneTool = Literal["auto", "hang_up", "transfer_call", "collect_digits", "send_digits"]


class PhoneSettings(Section):
    """The telephone: an account at Twilio (or a server that imitates it), or an Asterisk of one's own."""

    public_url: Annotated[str, BeforeValidator(web_address)] = Field(
        "",
        description="Where the phone company reaches this server, for instance `https://voice.example.org`; a bare "
        "host is taken for https.",
    )
    account_sid: str = Field("", description="Account SID, `AC...`, of the console's first page.")
    auth_token: SecretStr = Field(
        SecretStr(""), description="Signs webhooks and opens the REST API; never shown."
    )
    trusted_proxies: Names = Field(
        ("127.0.0.1", "::1"),
        description="Without `public_url`: addresses or networks, beside `server.trusted_proxies`, whose "
        "X-Forwarded-Host and -Proto are believed.",
    )
    stream_key: SecretStr = Field(
        SecretStr(""),
        description="A stream whose path ends in this key needs no token of ours: `/media-stream/KEY`, for companies "
        "that do not ask our webhook. Never shown.",
    )
    greeting: str = Field(
        "", description="Said when a call starts; empty: `conversation.greeting`."
    )
    keypad_pause_ms: int = Field(
        2_000, ge=200, le=20_000, description="Silence of the keypad after which keys are answered."
    )
    tools: Annotated[tuple[PhoneTool, ...], NoDecode, BeforeValidator(names)] = Field(
        ("auto",),
        description="What the agent may do on the line: `hang_up`, `transfer_call`, `collect_digits`, `send_digits`. "
        "`auto`: the first two, unless the language model is too small to know when (the embedded one is). Each takes "
        "part of its prompt.",
    )
    transfer_numbers: Names = Field(
        (),
        description="Where the agent may connect callers to, and nowhere else: `sales=+15550100` or `+15550100` each.",
    )
    from_number: str = Field("", description="Caller ID of outbound calls, `+15550100`.")
    dial_prefixes: Names = Field(
        (),
        description="Numbers that may be called begin with one of these, `+1, +4930`; empty: any. Against fraud.",
    )
    rest_base_url: str = Field(
        "https://api.twilio.com", description="REST API: Twilio's, or a server that imitates it."
    )
    media_hosts: Names = Field(
        (),
        description="Hosts beside the phone company's from which recordings may be fetched, also inside the own "
        "network: `https://media.example.org`. For the simulator on this machine: `127.0.0.1`, on any port.",
    )
    record_max_s: int = Field(
        60, ge=1, le=600, description="Recorded flow: longest answer of a caller, in seconds."
    )
    record_silence_s: int = Field(
        2, ge=1, le=30, description="Recorded flow: silence that ends a recording, in seconds."
    )
    record_call: bool = Field(False, description="Have Twilio record calls that we make.")
    voicemail: Literal["hang-up", "message", "ignore"] = Field(
        "hang-up", description="When an answering machine takes a call that we make."
    )
    voicemail_message: str = Field("", description="Said after the beep, for `message`.")
    audiosocket_port: int = Field(
        0, ge=0, le=65535, description="TCP port for Asterisk's AudioSocket; 0: off."
    )
    audiosocket_host: Host = Field(
        "127.0.0.1",
        description="Address that AudioSocket listens on; any but loopback needs peers.",
    )
    audiosocket_peers: Names = Field(
        (), description="Addresses or networks, `10.0.0.0/24`, that may use AudioSocket."
    )


class RealtimeSettings(Section):
    """The OpenAI Realtime API, `/v1/realtime`."""

    dialect: Literal["auto", "ga", "beta"] = Field(
        "auto", description="Which event names clients get; `auto`: as the client asks."
    )
    max_session_s: int = Field(
        3600,
        ge=1,
        description="A session is ended after this many seconds, with `session_expired`.",
    )
    speak_ahead_ms: int = Field(
        20_000, ge=0, description="Speech made and sent beyond what the client can have played."
    )
    max_append_bytes: int = Field(
        15 << 20, ge=1024, description="Audio of one `input_audio_buffer.append`, decoded."
    )
    max_kept_audio_bytes: int = Field(
        16 << 20, ge=0, description="Audio kept per session for `conversation.item.retrieve`."
    )
    max_session_bytes: int = Field(
        16 << 20,
        ge=1 << 16,
        description="Memory of a session's items, instructions and tools; beyond it items and updates are refused.",
    )
    strict_truncate: bool = Field(
        False, description="Truncating beyond an item's audio is an error, not clamped."
    )
    rtc_setup_s: int = Field(
        20,
        ge=1,
        description="WebRTC: seconds from the SDP answer until the peer must be connected.",
    )
    rtc_ice_servers: Names = Field(
        (), description="WebRTC: `stun:host:port` and `turn:host:port`, one of each at most."
    )
    rtc_turn_user: str = Field("", description="WebRTC: user at the TURN server.")
    rtc_turn_password: SecretStr = Field(
        SecretStr(""), description="WebRTC: password at the TURN server."
    )


class SecuritySettings(Section):
    """Who may use the server; docs/howto/security.md explains it. Without any key only this machine may."""

    api_key: SecretStr = Field(
        SecretStr(""), description="A key in clear text, for containers; several with commas."
    )
    keys: Names = Field(
        (),
        description="Hashed keys, `name=sha256:...` each, as `antiphon keys create` prints them.",
    )
    keys_file: Path = Field(
        Path("antiphon-keys.json"),
        description="What `antiphon keys` writes; read again when it changes.",
    )
    open: bool = Field(False, description="Without keys: serve other machines too.")
    local: bool = Field(False, description="With keys: callers of this machine need none.")
    max_sessions: int = Field(
        0, ge=0, description="Calls at a time with one key; 0: any. A key of the file may say more."
    )
    minutes_per_day: int = Field(
        0, ge=0, description="Minutes of calls and audio with one key in a day (UTC); 0: any."
    )
    requests_per_minute: int = Field(
        0, ge=0, description="Requests and connections with one key in a minute; 0: any."
    )

    @field_validator("keys", mode="after")
    @classmethod
    def _hashed(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for number, key in enumerate(keys, 1):
            if not HASHED_KEY.fullmatch(key):  # never shown: it may be a key in clear text
                raise ValueError(
                    f"entry {number} is not name=sha256:<64 digits>; make one with `antiphon keys create`"
                )
        return keys


NEGOTIATED = frozenset({"client_can_clear", "client_reports_played"})
"""Part of a policy, but said by each client and not by the owner."""
_BARGE_IN = ("confirm", "immediate")


def check_policy(policy: Policy) -> Policy:
    """The core takes any policy; an owner's slip of the pen should not become a strange conversation."""
    for field in dataclasses.fields(policy):
        name, value = field.name, getattr(policy, field.name)
        if name in NEGOTIATED and value:
            raise ValueError(f"{name}: each client says that itself; it cannot be set")
        if (name.endswith("_threshold") or name == "patience") and not 0 <= value <= 1:
            raise ValueError(f"{name}: must be between 0 and 1, got {value}")
        if type(value) is int and value < 0:
            raise ValueError(f"{name}: must not be negative, got {value}")
    if policy.barge_in not in _BARGE_IN:
        raise ValueError(
            f"barge_in: unknown way {policy.barge_in!r}{suggest(policy.barge_in, _BARGE_IN)}"
        )
    return policy
