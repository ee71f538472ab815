"""All live views at once, fed with the actions of a simulated call."""

from __future__ import annotations

import logging

import pytest

from antiphon.core import actions as act
from antiphon.core.turn_record import TurnRecord
from antiphon.observe.metrics import Metrics
from antiphon.observe.turn_sink import TurnSink
from antiphon.testing.virtual_call import World


def test_a_call_is_counted_and_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    with caplog.at_level(logging.INFO):
        watch = TurnSink(metrics).watch("c1")
        for _, action in world.log:
            watch.take([action])
        watch.end(world.now_ms)
    text = metrics.render()[0].decode()
    assert 'antiphon_turns_total{kind="answer",status="completed"} 3.0' in text
    assert 'antiphon_calls_ended_total{reason="finished"} 1.0' in text
    assert "antiphon_calls_active 0.0" in text
    assert len([r for r in caplog.records if r.name == "antiphon.turns"]) == 6


def test_a_call_without_a_hangup_ended_by_an_error() -> None:
    metrics = Metrics()
    TurnSink(metrics).watch("c1").end(10)
    assert 'antiphon_calls_ended_total{reason="error"} 1.0' in metrics.render()[0].decode()


def test_watching_never_ends_a_call(caplog: pytest.LogCaptureFixture) -> None:
    broken = TurnRecord(1, played_ms=None)  # type: ignore[arg-type]
    TurnSink(Metrics()).watch("c1").take([act.TurnRecorded(broken)])
    assert "could not be counted" in caplog.text
