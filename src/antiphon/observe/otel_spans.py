"""OpenTelemetry spans from turn records: call > turn > stage, with the records' own times.

Needs the extra `otel`; the library is imported when a call is traced. The language model's span follows the GenAI
semantic conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/). No text of a call goes into a span.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from antiphon.core.turn_record import TurnRecord
from antiphon.errors import ConfigError
from antiphon.observe.turn_figures import (
    detector_asked_ms,
    heard_from_ms,
    voice_to_voice_ms,
    wasted_guesses,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider
    from opentelemetry.trace import Span, TracerProvider

Value = str | int | float | bool
_NAME = "antiphon"
_NS_PER_MS = 1_000_000


def setup(service: str = _NAME) -> SdkProvider:
    """A provider that sends spans by OTLP over HTTP, where `OTEL_EXPORTER_OTLP_ENDPOINT` and its kin say.

    `shutdown()` it at the end of the process: that sends what is left. Raises ConfigError without the extra `otel`.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        message = "spans need the extra otel: pip install 'antiphon[otel]'"
        raise ConfigError(message) from None
    name = os.environ.get("OTEL_SERVICE_NAME") or service
    resource = Resource.create({"service.name": name})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class CallSpans:
    """The spans of one call. `add_turn` for each record, then `end`; spans are exported as they end."""

    def __init__(
        self,
        call_id: str,
        began_unix_ns: int,
        *,
        provider: TracerProvider | None = None,
        models: Mapping[str, str] | None = None,
    ) -> None:
        """`began_unix_ns`: wall clock at the call's 0 ms. `provider`: the process's one by default.

        `models`: kind (`stt`, `llm`, `tts`, `turn`) -> model's name.
        """
        from opentelemetry import trace

        self._call_id = call_id
        self._began_ns = began_unix_ns
        self._models = dict(models or {})
        self._tracer = trace.get_tracer(_NAME, tracer_provider=provider)
        self._trace = trace
        self._call = self._tracer.start_span(
            "call",
            context=None,
            kind=trace.SpanKind.SERVER,
            start_time=began_unix_ns,
            attributes={"antiphon.call.id": call_id, "gen_ai.conversation.id": call_id},
        )
        self._turns: set[int] = set()

    def end(self, now_ms: int, reason: str = "", audio: Mapping[str, Value] | None = None) -> None:
        """The call is over, `now_ms` after it began. `audio`: the caller's, in figures."""
        for name, value in (audio or {}).items():
            self._call.set_attribute(f"antiphon.audio.{name}", value)
        self._call.set_attribute("antiphon.call.turns", len(self._turns))
        self._call.set_attribute("antiphon.call.end_reason", reason)
        if reason == "error":
            self._call.set_status(self._trace.StatusCode.ERROR)
        self._call.end(self._at(now_ms))

    def add_turn(self, record: TurnRecord) -> None:
        """A turn that has ended, with its stages."""
        start_ms, end_ms = extent(record)
        name = "turn" if record.number else record.kind
        span = self._start(name, self._call, start_ms, turn_attributes(record))
        if record.number:
            self._turns.add(record.number)
        heard_ms = heard_from_ms(record)
        for event, at_ms in (
            ("end of speech", record.speech_end_ms),
            ("committed", record.committed_ms),
            ("heard", heard_ms),
        ):
            if at_ms is not None:
                span.add_event(event, timestamp=self._at(at_ms))
        if record.status == "failed":
            span.set_status(self._trace.StatusCode.ERROR)
        self._add_stages(span, record)
        span.end(self._at(end_ms))

    def _add_stages(self, turn: Span, r: TurnRecord) -> None:
        self._stage(turn, "speech", r.speech_start_ms, r.speech_end_ms)
        self._stage(turn, "stt", r.transcribe_ms, r.transcript_ms)
        self._stage(turn, "turn", detector_asked_ms(r), r.turn_scored_ms)
        self._add_llm(turn, r)
        self._stage(turn, "tts", r.speak_ms, r.audio_done_ms or r.first_audio_ms)
        heard_ms = heard_from_ms(r)
        if heard_ms is not None and r.ended_ms is not None:
            self._stage(turn, "playback", heard_ms, r.ended_ms)

    def _add_llm(self, turn: Span, r: TurnRecord) -> None:
        model = self._models.get("llm", "")
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.output.type": "text",
            "gen_ai.conversation.id": self._call_id,
            "gen_ai.usage.input_tokens": r.input_tokens,
            "gen_ai.usage.output_tokens": r.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": r.cached_tokens,
        }
        if model:
            attributes |= {"gen_ai.provider.name": model.partition(":")[0]}
            attributes |= {"gen_ai.request.model": model.partition(":")[2] or model}
        if r.generate_ms is not None and r.first_token_ms is not None:
            wait_s = (r.first_token_ms - r.generate_ms) / 1000
            attributes["gen_ai.response.time_to_first_chunk"] = wait_s
        end_ms = r.text_done_ms if r.text_done_ms is not None else r.ended_ms
        name = f"chat {attributes.get('gen_ai.request.model', '')}".strip()
        self._stage(turn, "llm", r.generate_ms, end_ms, name=name, attributes=attributes)

    def _stage(
        self,
        turn: Span,
        kind: str,
        start_ms: int | None,
        end_ms: int | None,
        *,
        name: str = "",
        attributes: Mapping[str, Value] | None = None,
    ) -> None:
        if start_ms is None or end_ms is None or end_ms < start_ms:
            return
        found = dict(attributes or {})
        if model := self._models.get(kind):
            found.setdefault("antiphon.model", model)
        self._start(name or kind, turn, start_ms, found).end(self._at(end_ms))

    def _start(self, name: str, parent: Span, start_ms: int, attributes: Mapping[str, Any]) -> Span:
        return self._tracer.start_span(
            name,
            context=self._trace.set_span_in_context(parent),
            start_time=self._at(start_ms),
            attributes=attributes,
        )

    def _at(self, ms: int) -> int:
        return self._began_ns + ms * _NS_PER_MS


def extent(record: TurnRecord) -> tuple[int, int]:
    """First and last mark of a record, in ms of the call; (0, 0) for a record without marks."""
    names = (name for name in record.__slots__ if name.endswith("_ms"))
    durations = ("audio_ms", "played_ms")
    marks = [getattr(record, name) for name in names if name not in durations]
    found = [mark for mark in marks if mark is not None]
    return (min(found), max(found)) if found else (0, 0)


def turn_attributes(record: TurnRecord) -> dict[str, Value]:
    """A record's figures as span attributes."""
    found: dict[str, Value] = {
        "antiphon.turn.number": record.number,
        "antiphon.turn.kind": record.kind,
        "antiphon.turn.status": record.status,
        "antiphon.turn.interrupted": record.interrupted,
        "antiphon.turn.false_alarms": record.false_interruptions,
        "antiphon.turn.speculation_used": record.preemptive_used,
        "antiphon.turn.speculations_wasted": wasted_guesses(record),
        "antiphon.turn.characters": record.characters,
        "antiphon.turn.played_ms": record.played_ms,
    }
    delay_ms = voice_to_voice_ms(record)
    if delay_ms is not None:
        found["antiphon.turn.voice_to_voice_ms"] = delay_ms
    if record.turn_probability is not None:
        found["antiphon.turn.probability"] = record.turn_probability
    if record.text_end_probability is not None:
        found["antiphon.turn.ends_here"] = record.text_end_probability
    return found
