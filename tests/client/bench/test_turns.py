"""The turn and barge-in benches on a real server, and what they make of what they heard."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.client.bench.test_load import asks, url_of
from tests.server.support import serving
from tests.support import run

from antiphon.audio import g711
from antiphon.client.bench import interruption_bench, result_tables, turn
from antiphon.client.bench.interruption_bench import Outcome, Trial
from antiphon.client.bench.servers import Contender, Running
from antiphon.client.bench.traced_records import Traces, records, stages_of
from antiphon.client.bench.turn import BenchQuestion, Contestant
from antiphon.client.phone.carrier_playback import Playback
from antiphon.client.phone.clips import make_clip
from antiphon.client.phone.measure import TurnFigures
from antiphon.models.scripted import tone

QUESTION = BenchQuestion(asks(440), has_pause=False)
HEARD = TurnFigures("q", 0, 500, True, None, False, 210.0, True, 0, 0, False, 0, 0, 900)


def contest(folder: Path) -> Contestant:
    return Contestant(Contender("antiphon", []), Traces(folder))


def test_questions_of_a_call_with_their_stages(tmp_path: Path) -> None:
    async def scenario() -> Contestant:
        traced = tmp_path / "traces"
        async with serving(tmp_path, trace_dir=str(traced), trace_text=True) as served:
            one = contest(traced)
            server = Running("antiphon", url_of(served), os.getpid(), False)
            told: list[str] = []
            await turn.ask(one, server, [QUESTION, QUESTION], lambda name, *_: told.append(name))
            assert told == ["antiphon", "antiphon"]
            return one

    one = run(scenario())
    found = turn.summary([one])
    assert found["ratio"] is None
    contender = found["arms"]["antiphon"]
    assert (contender["turns"], contender["unanswered"], contender["cut_off"]) == (2, 0, 0)
    assert contender["voice_to_voice_ms"]["count"] == 2
    assert (contender["fluent_ms"]["count"], contender["with_pause_ms"]) == (2, None)
    assert {"transcript", "first token", "first audio", "sent"} <= set(contender["stages_ms"])
    assert result_tables.turn_chart(found).startswith("<svg")
    assert result_tables.turn_table(found).row_count == 1
    assert result_tables.stages_table(found).row_count >= 4


def test_a_server_that_is_gone_is_told_of(tmp_path: Path) -> None:
    one = Contestant(Contender("antiphon", []))
    server = Running("antiphon", "ws://127.0.0.1:9/media-stream", os.getpid(), False)
    asyncio.run(turn.ask(one, server, [QUESTION], lambda *_: None))
    contender = turn.summary([one])["arms"]["antiphon"]
    assert (contender["turns"], contender["unanswered"]) == (1, 1)
    assert contender["voice_to_voice_ms"] is None
    assert "31902" in contender["troubles"][0]
    assert result_tables.turn_table({"arms": {"antiphon": contender}}).row_count == 1


def test_the_ratio_is_of_the_medians() -> None:
    ours, theirs = Contestant(Contender("antiphon", [])), Contestant(Contender("pipecat", []))
    for one, delay in ((ours, 400.0), (theirs, 800.0)):
        fields = {"voice_to_voice_ms": delay, "barge_in_to_silence_ms": None, "cleared": False}
        one.turns = [(QUESTION, _with(HEARD, **fields))]
    assert turn.summary([ours, theirs])["ratio"] == 0.5


def _with(figures: TurnFigures, **changed: Any) -> TurnFigures:
    return replace(figures, **changed)


def test_records_come_from_traces() -> None:
    line = '{"t":9,"actions":[{"type":"TurnRecorded","record":{"speech_end_ms":100,"first_sent_ms":460}}]}'
    found = records(f'{{"trace":1}}\n{line}\n{line[:40]}"TurnRecorded"\n')
    assert found == [{"speech_end_ms": 100, "first_sent_ms": 460}]
    assert stages_of(found[0]) == {"sent": 360.0}
    assert stages_of({}) == {}


def test_no_trace_is_no_records(tmp_path: Path) -> None:
    assert asyncio.run(Traces(tmp_path).next_call(wait_s=0.05)) == []


# -- barge-in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trial", "result"),
    [
        (Trial("interruption", "stop", asks(660), 0.5), "stopped"),
        (Trial("backchannel", "echo", None, 0.5), "unmoved"),
    ],
    ids=["words", "echo"],
)
def test_trials_on_a_real_server(tmp_path: Path, trial: Trial, result: str) -> None:
    async def scenario() -> Outcome:
        traced = tmp_path / "traces"
        async with serving(tmp_path, trace_dir=str(traced), trace_text=True) as served:
            server = Running("antiphon", url_of(served), os.getpid(), False)
            return await interruption_bench.attempt(contest(traced), server, asks(550), trial)

    outcome = run(scenario())
    assert (outcome.result, outcome.trouble) == (result, "")
    assert (outcome.stop_ms is not None) == (result == "stopped")


def test_an_answer_that_does_not_come_is_a_failed_trial(tmp_path: Path) -> None:
    server = Running("antiphon", "ws://127.0.0.1:9/media-stream", os.getpid(), False)
    trial = Trial("interruption", "stop", asks(660), 0.1)
    outcome = asyncio.run(interruption_bench.attempt(contest(tmp_path), server, asks(550), trial))
    assert outcome.result == "failed"
    assert "31902" in outcome.trouble


def test_what_became_of_a_sound() -> None:
    trial = Trial("backchannel", "mm-hm", None, 1.0)
    peer_cleared = interruption_bench.judge(trial, 210.0, True, None)
    assert (peer_cleared.result, peer_cleared.stop_ms) == ("stopped", 210.0)
    assert interruption_bench.judge(trial, None, False, None).result == "unmoved"
    assert interruption_bench.judge(trial, 210.0, True, [{"number": 1}]).result == "stopped"
    answered = [{"number": 1, "false_alarms": 1}, {"number": 2}]
    assert interruption_bench.judge(trial, 210.0, True, answered).result == "stopped"
    alarm = [{"kind": "greeting", "number": 0}, {"number": 1, "false_alarms": 1}]
    resumed = interruption_bench.judge(trial, 210.0, True, alarm)
    assert (resumed.result, resumed.stop_ms) == ("resumed", None)
    assert interruption_bench.judge(trial, None, False, [{}]).result == "unmoved"


def test_trials_are_the_same_for_the_same_seed() -> None:
    cough = make_clip("cough", interruption_bench.cough(0), 8_000)
    made = [
        interruption_bench.trials([asks(660)], [asks(880)], [cough], 6, seed) for seed in (1, 1, 2)
    ]
    first, again, other = ([(trial.name, trial.after_s) for trial in found] for found in made)
    assert first == again
    assert first != other
    names = [trial.name for trial in made[0] if trial.kind == "backchannel"]
    assert sorted(set(names)) == ["880", "cough", "echo"]
    assert sum(trial.kind == "interruption" for trial in made[0]) == 6


def test_an_echo_is_softer_and_late() -> None:
    playback = Playback(0.0)
    playback.add(g711.encode_ulaw(tone(300, 400, 8_000, 2_000)))
    playback.advance(0.399)
    echo = interruption_bench.LiveEcho(playback, len(playback.heard))
    pcm = g711.decode_ulaw(echo.frames[0].codes).astype(np.float64)
    assert len(pcm) == 160
    assert np.sqrt(np.mean(pcm**2)) == pytest.approx(200, rel=0.1)
    nothing = interruption_bench.LiveEcho(Playback(0.0), 0)
    assert len(nothing.frames[0].codes) == 160


def test_frames_of_an_echo_follow_each_other_when_asked_for_at_once() -> None:
    playback = Playback(0.0)
    playback.add(g711.encode_ulaw(tone(300, 400, 8_000, 2_000)))
    playback.advance(0.399)
    echo = interruption_bench.LiveEcho(playback, len(playback.heard))
    codes = b"".join(echo.frames[index].codes for index in range(6))
    first = len(playback.heard) - interruption_bench.ECHO_DELAY_MS * 8
    said = g711.decode_ulaw(bytes(playback.heard[first : first + len(codes)])).astype(np.float64)
    heard = g711.decode_ulaw(codes).astype(np.float64)
    assert np.corrcoef(said, heard)[0, 1] > 0.99


def test_a_table_of_outcomes() -> None:
    outcomes = {
        "antiphon": [
            Outcome("interruption", "stop", 1.0, "stopped", 220.0),
            Outcome("backchannel", "echo", 1.0, "unmoved"),
            Outcome("backchannel", "cough", 1.0, "failed", None, "no answer"),
        ]
    }
    found = interruption_bench.summary(outcomes)
    contender = found["arms"]["antiphon"]
    assert contender["interruptions"]["stop_ms"]["median"] == 220.0
    assert (contender["backchannels"]["count"], contender["backchannels"]["failed"]) == (2, 1)
    assert set(contender["by_sound"]) == {"echo", "cough"}
    assert result_tables.barge_in_table(found).row_count == 1
    assert result_tables.barge_in_chart(found).startswith("<svg")
