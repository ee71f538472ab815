"""The session object: defaults, partial updates with the meaning of null, and what it asks of the conversation.

Always whole: `shown()` is the full effective object, for clients read defaults out of it. Kept in the GA dialect's
shape; `beta.py` translates.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from antiphon.core.policy import Policy
from antiphon.protocols.realtime import audio_formats as formats
from antiphon.protocols.realtime import schema
from antiphon.protocols.realtime.schema import RealtimeError

SERVER_VAD: dict[str, Any] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
SEMANTIC_VAD: dict[str, Any] = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": True,
}
_VADS = {"server_vad": SERVER_VAD, "semantic_vad": SEMANTIC_VAD}
_NOISE_LEVELS = {"near_field": 2, "far_field": 3}
_WAITS_MS = {"low": 8_000, "medium": 4_000, "auto": 4_000, "high": 2_000}
"""Longest silence by eagerness, as the hosted service documents it."""
_PATIENCE = {"low": 0.75, "high": 0.25}
"""By eagerness; else the owner's."""
_PLAIN = (
    "output_modalities",
    "instructions",
    "tools",
    "tool_choice",
    "max_output_tokens",
    "temperature",
    "include",
    "tracing",
    "truncation",
    "prompt",
    "reasoning",
    "parallel_tool_calls",
)
_HIDDEN = ("temperature",)
"""Known to the beta dialect only."""
_ABSENT = ("reasoning", "parallel_tool_calls")
"""Shown only once they are set."""


class SessionConfig:
    """One client's session object."""

    def __init__(
        self,
        session_id: str,
        *,
        model: str = "",
        instructions: str = "",
        voice: str = "alloy",
        kind: str = "realtime",
        expires_at: int | None = None,
    ) -> None:
        """`kind`: `realtime` or `transcription`. `expires_at`: Unix seconds."""
        self.id = session_id
        self.kind = kind
        self._model = model or "antiphon"
        self._expires_at = expires_at
        self._touched = False
        self._defaults: dict[str, Any] = {
            "output_modalities": ["audio"],
            "instructions": instructions,
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "temperature": None,
            "include": None,
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "reasoning": None,
            "parallel_tool_calls": None,
        }
        self._plain = copy.deepcopy(self._defaults)
        self._input: dict[str, Any] = {
            "format": formats.format_json(formats.PCM),
            "transcription": None,
            "noise_reduction": None,
            "turn_detection": dict(SERVER_VAD),
        }
        self._output_defaults: dict[str, Any] = {
            "format": formats.format_json(formats.PCM),
            "voice": voice,
            "speed": 1.0,
        }
        self._output = dict(self._output_defaults)

    # -- what it says ---------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        """A field at the top level."""
        return self._plain[name]

    @property
    def model(self) -> str:
        return self._model

    @property
    def expires_at(self) -> int | None:
        return self._expires_at

    @property
    def transcription(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._input["transcription"]
        return found

    @property
    def transcribes(self) -> bool:
        """The client is told what it said."""
        return self.kind == "transcription" or self.transcription is not None

    @property
    def noise_level(self) -> int | None:
        """The level of noise suppression as `audio.denoise` counts; a far microphone hears more of the room."""
        wanted = self._input["noise_reduction"]
        return None if wanted is None else _NOISE_LEVELS.get(wanted.get("type"))

    @property
    def turn_detection(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._input["turn_detection"]
        return found

    @property
    def input_format(self) -> str:
        return str(self._input["format"]["type"])

    @property
    def output_format(self) -> str:
        return str(self._output["format"]["type"])

    @property
    def voice(self) -> Any:
        return self._output["voice"]

    @property
    def speed(self) -> float:
        return float(self._output["speed"])

    @property
    def modality(self) -> str:
        """`audio` or `text`."""
        return str(self._plain["output_modalities"][0])

    def shown(self) -> dict[str, Any]:
        """The full effective object."""
        head = {"type": self.kind, "object": f"realtime.{_OBJECTS[self.kind]}", "id": self.id}
        if self.kind == "transcription":
            shown = {**head, "include": self._plain["include"], "audio": {"input": self._input}}
        else:
            plain = {
                name: value
                for name, value in self._plain.items()
                if name not in _HIDDEN and not (name in _ABSENT and value is None)
            }
            audio = {"input": self._input, "output": self._output}
            shown = {**head, "model": self._model, **plain, "audio": audio}
        return copy.deepcopy({**shown, "expires_at": self._expires_at})

    # -- what changes it ------------------------------------------------------------------------

    def update(
        self, patch: Any, *, spoke: bool = False, check: Callable[[Any], None] = lambda whole: None
    ) -> None:
        """A partial update: absent keys stay, null clears. `spoke`: there is assistant audio already.

        `check`: shown all that would be kept; may raise. Raises RealtimeError, and has then changed nothing.
        """
        if not isinstance(patch, Mapping):
            raise RealtimeError("session must be an object", "invalid_type", "session")
        schema.check(patch, schema.SessionObject, "session")
        self._check_kind(patch.get("type"))
        plain = self._patched_plain(patch)
        audio = patch.get("audio") or {}
        found = self._patched_input(audio.get("input") or {})
        output = self._patched_output(audio.get("output") or {}, spoke)
        check((plain, found, output))
        self._plain, self._input, self._output = plain, found, output
        self.kind = patch.get("type") or self.kind
        self._touched = True

    def _check_kind(self, kind: str | None) -> None:
        if kind is not None and kind != self.kind and self._touched:
            raise RealtimeError(
                f"session.type: a {self.kind} session cannot become a {kind} session",
                param="session.type",
            )

    def _patched_plain(self, patch: Mapping[str, Any]) -> dict[str, Any]:
        plain = dict(self._plain)
        for name in _PLAIN:
            if name in patch:
                value = patch[name]
                plain[name] = copy.deepcopy(self._defaults[name] if value is None else value)
        if patch.get("instructions", "") is None:
            plain["instructions"] = ""
        plain["output_modalities"] = modalities(plain["output_modalities"])
        schema.check_tools(plain["tools"], "session.tools")
        plain["tools"] = [{"type": "function", **tool} for tool in plain["tools"]]
        schema.check_tool_choice(plain["tool_choice"], "session.tool_choice")
        return plain

    def _patched_input(self, patch: Mapping[str, Any]) -> dict[str, Any]:
        found = copy.deepcopy(self._input)
        if patch.get("format") is not None:
            found["format"] = formats.format_json(patch["format"]["type"])
        for name in ("transcription", "noise_reduction"):
            if name in patch:
                given = patch[name]
                found[name] = None if given is None else {**(found[name] or {}), **given}
        if "turn_detection" in patch:
            found["turn_detection"] = _patched_vad(found["turn_detection"], patch["turn_detection"])
        return found

    def _patched_output(self, patch: Mapping[str, Any], spoke: bool) -> dict[str, Any]:
        output = dict(self._output)
        for name in ("voice", "speed"):
            if name in patch:
                given = patch[name]
                output[name] = self._output_defaults[name] if given is None else given
        if patch.get("format") is not None:
            output["format"] = formats.format_json(patch["format"]["type"])
        if spoke and voice_name(output["voice"]) != voice_name(self._output["voice"]):
            raise RealtimeError(
                "Cannot update a conversation's voice if assistant audio is present.",
                "cannot_update_voice",
                "session.audio.output.voice",
            )
        return output


_OBJECTS = {"realtime": "session", "transcription": "transcription_session"}


def voice_name(voice: Any) -> str:
    """The name of a voice in either of its forms."""
    return str(voice["id"] if isinstance(voice, Mapping) else voice)


def modalities(given: list[str]) -> list[str]:
    """`audio` implies its transcript, so both together are audio."""
    return ["audio"] if "audio" in given else ["text"]


def _patched_vad(before: dict[str, Any] | None, given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    kind = given.get("type") or (before or SERVER_VAD)["type"]
    defaults = _VADS[kind]
    base = before if before is not None and before["type"] == kind else defaults
    kept = {name: value for name, value in given.items() if name in defaults and name != "type"}
    cleared = {name: defaults[name] for name, value in kept.items() if value is None}
    return {**base, **kept, **cleared, "type": kind}


def policy_of(session: SessionConfig, base: Policy) -> Policy:
    """How the conversation is conducted under this session object; `base` is the owner's."""
    policy = replace(
        base,
        greeting="",
        goodbye="",
        apology="",
        idle_prompt_after_ms=0,
        idle_answer=True,
        interruptible=True,
        overhear=True,
        barge_in="immediate",
        reopen_turns=False,
        speak_replies=session.modality == "audio",
        client_can_clear=True,
        partial_every_ms=base.partial_every_ms if session.transcribes else 0,
    )
    vad = session.turn_detection
    if vad is None:
        return replace(policy, auto_turns=False, auto_reply=False)
    policy = replace(
        policy,
        auto_turns=True,
        auto_reply=vad["create_response"] and session.kind == "realtime",
        interruptible=vad["interrupt_response"],
        idle_prompt_after_ms=vad.get("idle_timeout_ms") or 0,
    )
    if vad["type"] == "semantic_vad":
        patience = _PATIENCE.get(vad["eagerness"], policy.patience)
        return _semantic(replace(policy, patience=patience), _WAITS_MS[vad["eagerness"]])
    return _by_silence(policy, vad)


def _semantic(policy: Policy, longest_ms: int) -> Policy:
    """Our own endpointing, with the wait for a turn that sounds unfinished as the client wants it."""
    share = longest_ms / _WAITS_MS["medium"]
    return replace(
        policy,
        unsure_silence_ms=round(policy.unsure_silence_ms * share),
        max_silence_ms=longest_ms,
        dictation_silence_ms=max(policy.dictation_silence_ms, longest_ms),
    )


def _by_silence(policy: Policy, vad: Mapping[str, Any]) -> Policy:
    """Silence alone decides."""
    silence_ms = max(vad["silence_duration_ms"], 1)
    threshold = vad["threshold"]
    echo_margin = max(policy.barge_in_threshold - policy.speech_threshold, 0.0)
    return replace(
        policy,
        use_turn_detector=False,
        speech_threshold=threshold,
        silence_threshold=min(policy.silence_threshold, threshold),
        barge_in_threshold=min(threshold + echo_margin, max(threshold, 0.95)),
        prefix_padding_ms=vad["prefix_padding_ms"],
        min_silence_ms=silence_ms,
        unsure_silence_ms=silence_ms,
        plain_silence_ms=silence_ms,
        max_silence_ms=silence_ms,
        dictation_silence_ms=silence_ms,
    )


@dataclass(frozen=True, slots=True)
class AgentParams:
    """What a session object asks of who answers. `voice` may be one that there is not; None: as the owner has it."""

    prompt: str
    voice: Any
    language: str | None
    temperature: float | None
    max_tokens: int
    speed: float
    tools: tuple[dict[str, Any], ...]
    """In the chat-completions form."""
    tool_choice: Any


def agent_params(session: SessionConfig) -> AgentParams:
    return AgentParams(
        prompt=session["instructions"],
        voice=session.voice,
        language=(session.transcription or {}).get("language"),
        temperature=session["temperature"],
        max_tokens=token_limit(session["max_output_tokens"]),
        speed=session.speed,
        tools=schema.chat_tools(session["tools"]),
        tool_choice=tool_choice(session["tool_choice"]),
    )


def known_voice(wanted: Any, own: str, voices: Collection[str]) -> str:
    """One that there is: clients ask for `alloy` or `marin` whatever the server speaks with."""
    name = voice_name(wanted)
    return name if name in voices else own


def token_limit(limit: int | str | None) -> int:
    return limit if isinstance(limit, int) else schema.MAX_TOKENS


def tool_choice(choice: Any) -> Any:
    """As in chat completions; None: the model's own default."""
    return None if choice == "auto" else schema.chat_tool_choice(choice)
