"""Spans of a simulated call, as an exporter gets them."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from antiphon.core.turn_record import TurnRecord
from antiphon.errors import ConfigError
from antiphon.observe import otel_spans
from antiphon.observe.otel_spans import CallSpans, extent

BEGAN_NS = 1_760_000_000_000_000_000
MODELS = {"llm": "openai:gpt-4o-mini", "stt": "moonshine"}


def spans_of(records: list[TurnRecord], **how: Any) -> list[Any]:
    pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    call = CallSpans("c1", BEGAN_NS, provider=provider, models=MODELS)
    for record in records:
        call.add_turn(record)
    call.end(how.get("now_ms", 45_000), how.get("reason", "finished"))
    return list(exporter.get_finished_spans())


def ms(unix_ns: int) -> float:
    return (unix_ns - BEGAN_NS) / 1e6


def test_call_turn_stage(records: list[TurnRecord]) -> None:
    spans = spans_of(records)
    (call,) = [s for s in spans if s.name == "call"]
    turns = [s for s in spans if s.parent and s.parent.span_id == call.context.span_id]
    assert [s.name for s in turns] == ["greeting", "turn", "turn", "turn", "turn", "goodbye"]
    first = turns[1]
    stages = {s.name: s for s in spans if s.parent and s.parent.span_id == first.context.span_id}
    assert set(stages) == {"speech", "stt", "turn", "chat gpt-4o-mini", "tts", "playback"}
    assert len({s.context.trace_id for s in spans}) == 1
    record = records[1]
    assert ms(stages["stt"].start_time) == record.transcribe_ms
    assert ms(stages["stt"].end_time) == record.transcript_ms
    for span in stages.values():
        assert first.start_time <= span.start_time <= span.end_time <= first.end_time
    assert (ms(call.start_time), ms(call.end_time)) == (0, 45_000)
    assert call.attributes["antiphon.call.turns"] == 4
    assert [event.name for event in first.events] == ["end of speech", "committed", "heard"]
    assert first.attributes["antiphon.turn.interrupted"] is True


def test_the_language_model_follows_the_conventions(records: list[TurnRecord]) -> None:
    (span, *_) = [s for s in spans_of(records) if s.name.startswith("chat")]
    found = dict(span.attributes)
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.provider.name"] == "openai"
    assert found["gen_ai.request.model"] == "gpt-4o-mini"
    assert found["gen_ai.usage.input_tokens"] == 20
    assert found["gen_ai.usage.output_tokens"] == 20
    assert found["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.11)


def test_no_words_in_spans(records: list[TurnRecord]) -> None:
    text = " ".join(str(dict(span.attributes)) for span in spans_of(records))
    assert "sea" not in text
    assert "sky" not in text


def test_failures_are_errors() -> None:
    spans = spans_of([TurnRecord(1, status="failed", committed_ms=10)], reason="error")
    assert [span.status.status_code.name for span in spans] == ["ERROR", "ERROR"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (TurnRecord(1), (0, 0)),
        (TurnRecord(1, committed_ms=500, audio_ms=9_000, played_ms=9_000), (500, 500)),
        (TurnRecord(1, speech_start_ms=100, ended_ms=900, first_sent_ms=700), (100, 900)),
    ],
)
def test_extent(record: TurnRecord, expected: tuple[int, int]) -> None:
    assert extent(record) == expected


def test_setup_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ConfigError, match=r"pip install 'antiphon\[otel\]'"):
        otel_spans.setup()
