"""What a session object or a `response.create` asks of the models, in the session's words. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from antiphon.session.runners import Agent
from antiphon.wire.realtime import shapes
from antiphon.wire.realtime.responses import Terms
from antiphon.wire.realtime.session import Session, modalities, voice_name


def agent_of(session: Session, owner: Agent, voices: Collection[str]) -> Agent:
    """`owner`: by the settings. `voices`: those that the text to speech has."""
    language = (session.transcription or {}).get("language")
    temperature = session["temperature"]
    return replace(
        owner,
        prompt=session["instructions"],
        voice=voice_of(session.voice, owner.voice, voices),
        language=owner.language if language is None else language,
        temperature=owner.temperature if temperature is None else temperature,
        max_tokens=tokens_of(session["max_output_tokens"]),
        speed=session.speed,
        tools=shapes.chat_tools(session["tools"]),
        tool_choice=_choice(session["tool_choice"]),
    )


def voice_of(wanted: Any, own: str, voices: Collection[str]) -> str:
    """One that there is: clients ask for `alloy` or `marin` whatever the server speaks with."""
    name = voice_name(wanted)
    return name if name in voices else own


def tokens_of(limit: int | str | None) -> int:
    return limit if isinstance(limit, int) else shapes.MAX_TOKENS


def _choice(choice: Any) -> Any:
    return None if choice == "auto" else shapes.chat_tool_choice(choice)


def check_params(params: Mapping[str, Any]) -> None:
    """The `response` of a `response.create`. Raises PeerError."""
    shapes.check(params, shapes.ReplyParams, "response")
    shapes.check_metadata(params.get("metadata"))
    shapes.check_tools(params.get("tools") or [], "response.tools")
    shapes.check_tool_choice(params.get("tool_choice"), "response.tool_choice")


def terms_of(params: Mapping[str, Any], session: Session, conversation: str | None) -> Terms:
    """What the response will say of itself."""
    said = (params.get("audio") or {}).get("output") or {}
    wanted = params.get("output_modalities")
    limit = params.get("max_output_tokens")
    return Terms(
        modality=modalities(wanted)[0] if wanted else session.modality,
        format=(said.get("format") or {}).get("type") or session.output_format,
        voice=said.get("voice") or session.voice,
        max_output_tokens=session["max_output_tokens"] if limit is None else limit,
        conversation=conversation,
        metadata=params.get("metadata"),
    )


def options_of(
    params: Mapping[str, Any], owner_voice: str, voices: Collection[str]
) -> dict[str, Any]:
    """What differs from the session's own, for the runners and for the encoder."""
    options: dict[str, Any] = {}
    if params.get("instructions") is not None:
        options["instructions"] = params["instructions"]
    if params.get("tools") is not None:
        options["tools"] = shapes.chat_tools(params["tools"])
        options["declared"] = params["tools"]
    if params.get("tool_choice") is not None:
        options["tool_choice"] = _choice(params["tool_choice"])
    if params.get("max_output_tokens") is not None:
        options["max_tokens"] = tokens_of(params["max_output_tokens"])
    if params.get("temperature") is not None:
        options["temperature"] = params["temperature"]
    voice = ((params.get("audio") or {}).get("output") or {}).get("voice")
    if voice is not None:
        options["voice"] = voice_of(voice, owner_voice, voices)
    return options
