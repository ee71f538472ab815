"""The beta dialect as a translation: its events into those of the GA dialect, and theirs back into its own.

One session, two vocabularies. Functions on JSON values, but for two bits of memory that `Beta` keeps. Source: the
`openai` package's types of both dialects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from antiphon.protocols.realtime import audio_formats as formats
from antiphon.protocols.realtime.schema import RealtimeError

_FORMATS = {"pcm16": formats.PCM, "g711_ulaw": formats.ULAW, "g711_alaw": formats.ALAW}
_BETA_FORMATS = {ga: beta for beta, ga in _FORMATS.items()}
_RENAMED = {
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "conversation.item.added": "conversation.item.created",
}
_UNKNOWN = ("conversation.item.done", "input_audio_buffer.timeout_triggered")
_PARTS = {"output_text": "text", "output_audio": "audio"}
_SAME = ("instructions", "tools", "tool_choice", "temperature", "tracing", "include")
_FLAT = (
    "modalities",
    "voice",
    "speed",
    "input_audio_format",
    "output_audio_format",
    "input_audio_transcription",
    "input_audio_noise_reduction",
    "turn_detection",
    "max_response_output_tokens",
    "temperature",
)


def looks_beta(event: Mapping[str, Any]) -> bool:
    """A `session.update` of a client that never said which dialect it speaks."""
    if event.get("type") == "transcription_session.update":
        return True
    session = event.get("session")
    if event.get("type") != "session.update" or not isinstance(session, Mapping):
        return False
    return "type" not in session and "audio" not in session and any(k in session for k in _FLAT)


class Beta:
    """The translation for one connection."""

    def __init__(self) -> None:
        self.temperature = 0.8
        self._transcription = False
        """The client asked for a transcription session by its own event."""

    # -- from the client ------------------------------------------------------------------------

    def incoming(self, event: dict[str, Any]) -> dict[str, Any]:
        """Raises RealtimeError for a value that has no counterpart."""
        match event.get("type"):
            case "session.update":
                return {**event, "session": self._session_in(event.get("session"))}
            case "transcription_session.update":
                self._transcription = True
                session = self._session_in(event.get("session"))
                if isinstance(session, dict):
                    session["type"] = "transcription"
                return {**event, "type": "session.update", "session": session}
            case "response.create" if isinstance(event.get("response"), Mapping):
                return {**event, "response": _response_in(event["response"])}
            case "conversation.item.create" if isinstance(event.get("item"), Mapping):
                return {**event, "item": _item_in(event["item"])}
        return event

    def _session_in(self, flat: Any) -> Any:
        if not isinstance(flat, Mapping):
            return flat
        if isinstance(flat.get("temperature"), int | float):
            self.temperature = float(flat["temperature"])
        session: dict[str, Any] = {k: flat[k] for k in _SAME if k in flat}
        if "modalities" in flat:
            session["output_modalities"] = flat["modalities"]
        if "max_response_output_tokens" in flat:
            session["max_output_tokens"] = flat["max_response_output_tokens"]
        heard = {
            ga: flat[beta]
            for beta, ga in (
                ("input_audio_transcription", "transcription"),
                ("input_audio_noise_reduction", "noise_reduction"),
                ("turn_detection", "turn_detection"),
            )
            if beta in flat
        }
        if "input_audio_format" in flat:
            heard["format"] = _format_in(flat["input_audio_format"], "session.input_audio_format")
        said = {k: flat[k] for k in ("voice", "speed") if k in flat}
        if "output_audio_format" in flat:
            said["format"] = _format_in(flat["output_audio_format"], "session.output_audio_format")
        session["audio"] = {"input": heard, "output": said}
        return session

    # -- to the client --------------------------------------------------------------------------

    def outgoing(self, event: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One event of the GA dialect -> none, one or two."""
        kind = event["type"]
        if kind in _UNKNOWN:
            return
        out = {**event, "type": _RENAMED.get(kind, kind)}
        if "session" in event:
            out["session"] = self._session_out(event["session"])
            if event["session"]["type"] == "transcription" and self._transcription:
                out["type"] = f"transcription_{kind}"
        if "response" in event:
            out["response"] = self._response_out(event["response"])
        if "item" in event:
            out["item"] = _item_out(event["item"])
        yield out

    def _session_out(self, session: Mapping[str, Any]) -> dict[str, Any]:
        heard = session["audio"]["input"]
        flat: dict[str, Any] = {
            "id": session["id"],
            "object": session["object"],
            "input_audio_format": _BETA_FORMATS[heard["format"]["type"]],
            "input_audio_transcription": heard["transcription"],
            "input_audio_noise_reduction": heard["noise_reduction"],
            "turn_detection": heard["turn_detection"],
            "expires_at": session["expires_at"],
        }
        said = session["audio"].get("output")
        if said is None:
            secret = {"value": "", "expires_at": session["expires_at"] or 0}
            return {**flat, "client_secret": secret}  # its types want one, whoever asked
        return {
            **flat,
            "model": session["model"],
            "modalities": _modalities(session["output_modalities"]),
            "instructions": session["instructions"],
            "voice": said["voice"],
            "output_audio_format": _BETA_FORMATS[said["format"]["type"]],
            "speed": said["speed"],
            "tools": session["tools"],
            "tool_choice": session["tool_choice"],
            "temperature": self.temperature,
            "max_response_output_tokens": session["max_output_tokens"],
            "tracing": session["tracing"],
            "client_secret": None,
        }

    def _response_out(self, response: Mapping[str, Any]) -> dict[str, Any]:
        said = response["audio"]["output"]
        kept = ("object", "id", "status", "status_details", "conversation_id", "usage", "metadata")
        return {
            **{name: response[name] for name in kept},
            "output": [_item_out(item) for item in response["output"]],
            "modalities": _modalities(response["output_modalities"]),
            "voice": said["voice"],
            "output_audio_format": _BETA_FORMATS[said["format"]["type"]],
            "temperature": self.temperature,
            "max_output_tokens": response["max_output_tokens"],
        }


def _modalities(ga: list[str]) -> list[str]:
    return ["text", "audio"] if ga == ["audio"] else ["text"]


def _format_in(name: Any, param: str) -> dict[str, Any]:
    kind = _FORMATS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise RealtimeError(f"{param}: {', '.join(_FORMATS)}", param=param)
    return {"type": kind}


def _response_in(flat: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {"modalities": "output_modalities", "max_response_output_tokens": "max_output_tokens"}
    dropped = ("voice", "output_audio_format")
    response = {renamed.get(k, k): v for k, v in flat.items() if k not in dropped}
    said: dict[str, Any] = {}
    if flat.get("voice") is not None:
        said["voice"] = flat["voice"]
    if flat.get("output_audio_format") is not None:
        said["format"] = _format_in(flat["output_audio_format"], "response.output_audio_format")
    if said:
        response["audio"] = {"output": said}
    return response


def _item_in(item: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of assistant messages are short-named in this dialect; both names are taken."""
    parts = item.get("content")
    if item.get("role") != "assistant" or not isinstance(parts, list):
        return dict(item)
    return {**item, "content": [_part_in(part) for part in parts]}


def _part_in(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind not in ("text", "audio"):
        return part
    return {**part, "type": f"output_{kind}"}


def _item_out(item: Mapping[str, Any]) -> dict[str, Any]:
    if "content" not in item:
        return dict(item)
    content = [{**part, "type": _PARTS.get(part["type"], part["type"])} for part in item["content"]]
    return {**item, "content": content}
