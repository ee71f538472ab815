"""`/v1/audio/transcriptions`: the form's fields, and a transcript in each of the formats.

Times are those of the stretches of speech that were found; no model behind this server tells the times of words, so
those are spread over their stretch by length.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from antiphon.errors import suggest
from antiphon.wire.openai_http.parsing import BadRequest

FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
CONTENT_TYPES = {
    "text": "text/plain; charset=utf-8",
    "srt": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
"""Of the formats that are not JSON."""
_SPACELESS = frozenset({"zh", "yue", "ja", "th"})
_MAX_LANGUAGE_CHARS = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form asks for."""

    response_format: str = "json"
    language: str = ""
    stream: bool = False
    words: bool = False
    segments: bool = True
    """In `verbose_json`."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Words of one stretch of speech, and where it lies in the recording."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Heard:
    """A whole transcript."""

    segments: tuple[Segment, ...]
    duration_s: float
    """Of the recording."""
    language: str
    """ISO 639-1; empty: not known."""

    @property
    def text(self) -> str:
        return separator(self.language).join(segment.text for segment in self.segments)


def separator(language: str) -> str:
    """Between two stretches."""
    return "" if language in _SPACELESS else " "


def asked(fields: Iterable[tuple[str, Any]]) -> Asked:
    """The form's text fields, in order; names that are not known are ignored. Raises BadRequest."""
    values: dict[str, str] = {}
    granularities: list[str] = []
    for name, value in fields:
        if not isinstance(value, str):
            continue
        if name.removesuffix("[]") == "timestamp_granularities":
            granularities.append(value)
        else:
            values[name] = value
    response_format = values.get("response_format") or "json"
    if response_format not in FORMATS:
        wrong = response_format[:40]
        raise BadRequest(
            f"unknown response_format {wrong!r}{suggest(wrong, FORMATS)}", "response_format"
        )
    if wrong_ones := [g for g in granularities if g not in ("word", "segment")]:
        raise BadRequest(
            f"unknown timestamp granularity {wrong_ones[0][:40]!r}; use word or segment",
            "timestamp_granularities",
        )
    return Asked(
        response_format,
        _language(values.get("language", "")),
        _flag(values),
        "word" in granularities,
        not granularities or "segment" in granularities,
    )


def _language(value: str) -> str:
    """`en`, `en-GB` and `EN` are the same to a model."""
    code = value.strip().lower().replace("_", "-").partition("-")[0]
    if len(value) > _MAX_LANGUAGE_CHARS or (code and not (code.isalpha() and code.isascii())):
        raise BadRequest("language must be an ISO 639-1 code, for instance en", "language")
    return code


def _flag(values: Mapping[str, str]) -> bool:
    value = values.get("stream", "").strip().lower()
    if value not in ("", "true", "false", "1", "0"):
        raise BadRequest("stream must be true or false", "stream")
    return value in ("true", "1")


def body(heard: Heard, wanted: Asked) -> dict[str, Any] | str:
    """The transcript in the format that was asked for: an object, or text as it is."""
    match wanted.response_format:
        case "text":
            return heard.text + "\n"
        case "srt":
            return _srt(heard.segments)
        case "vtt":
            return _vtt(heard.segments)
        case "verbose_json":
            return _verbose(heard, wanted)
        case "diarized_json":
            return _diarized(heard)
    return {"text": heard.text, "usage": _usage(heard)}


def delta(text: str) -> dict[str, Any]:
    return {"type": "transcript.text.delta", "delta": text}


def done(text: str) -> dict[str, Any]:
    return {"type": "transcript.text.done", "text": text}


def _usage(heard: Heard) -> dict[str, Any]:
    return {"type": "duration", "seconds": round(heard.duration_s, 3)}


def _verbose(heard: Heard, wanted: Asked) -> dict[str, Any]:
    found: dict[str, Any] = {
        "task": "transcribe",
        "language": heard.language,
        "duration": round(heard.duration_s, 3),
        "text": heard.text,
        "usage": _usage(heard),
    }
    if wanted.segments:
        found["segments"] = [_segment(n, segment) for n, segment in enumerate(heard.segments)]
    if wanted.words:
        found["words"] = [word for segment in heard.segments for word in _words(segment)]
    return found


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    """Fields that only Whisper could fill are there, with values that say nothing: the SDK wants them."""
    encoded = segment.text.encode()
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start_s, 3),
        "end": round(segment.end_s, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": round(len(encoded) / len(zlib.compress(encoded)), 3),
        "no_speech_prob": 0.0,
    }


def _words(segment: Segment) -> Iterator[dict[str, Any]]:
    words = segment.text.split()
    weights = [len(word) + 1 for word in words]
    pace_s = (segment.end_s - segment.start_s) / max(sum(weights), 1)
    at_s = segment.start_s
    for word, weight in zip(words, weights, strict=True):
        end_s = at_s + weight * pace_s
        yield {"word": word, "start": round(at_s, 3), "end": round(end_s, 3)}
        at_s = end_s


def _diarized(heard: Heard) -> dict[str, Any]:
    """One speaker: nothing here tells voices apart."""
    return {
        "task": "transcribe",
        "duration": round(heard.duration_s, 3),
        "text": heard.text,
        "usage": _usage(heard),
        "segments": [
            {
                "type": "transcript.text.segment",
                "id": f"seg_{number}",
                "start": round(segment.start_s, 3),
                "end": round(segment.end_s, 3),
                "speaker": "A",
                "text": segment.text,
            }
            for number, segment in enumerate(heard.segments)
        ],
    }


def _srt(segments: Sequence[Segment]) -> str:
    cues = [
        f"{number}\n{_clock(s.start_s, ',')} --> {_clock(s.end_s, ',')}\n{s.text}\n\n"
        for number, s in enumerate(segments, 1)
    ]
    return "".join(cues)


def _vtt(segments: Sequence[Segment]) -> str:
    """WebVTT wants `<` and `&` escaped, and no arrow in a text."""
    cues = []
    for s in segments:
        text = s.text.replace("&", "&amp;").replace("<", "&lt;").replace("-->", "--&gt;")
        cues.append(f"{_clock(s.start_s, '.')} --> {_clock(s.end_s, '.')}\n{text}\n\n")
    return "WEBVTT\n\n" + "".join(cues)


def _clock(seconds: float, mark: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{mark}{ms % 1000:03}"
