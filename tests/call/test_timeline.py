"""Both sides of a call on one clock: where audio lies, and what of the agent's voice was heard."""

from __future__ import annotations

import numpy as np

from antiphon.call.timeline import HOLD_MS, Timeline
from antiphon.models.ports import Pcm16

RATE_HZ = 16_000


def block(ms: int, value: int = 1000) -> Pcm16:
    return np.full(RATE_HZ * ms // 1000, value, np.int16)


def whole(line: Timeline, end_ms: int) -> tuple[Pcm16, Pcm16]:
    both = line.take(line.left(end_ms))
    return both[:, 0], both[:, 1]


def spans(side: Pcm16) -> list[tuple[int, int]]:
    """(from, to) in ms of what is not silent."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (side != 0).astype(np.int8), [0]])))
    return [(int(a) * 1000 // RATE_HZ, int(b) * 1000 // RATE_HZ) for a, b in edges.reshape(-1, 2)]


def say(line: Timeline, reply: str, from_ms: int, ms: int, now_ms: int) -> None:
    line.sent(reply, from_ms, block(ms), RATE_HZ, now_ms)


def test_the_caller_lies_where_the_audio_came() -> None:
    line = Timeline(RATE_HZ)
    for now_ms in (520, 540, 560, 700, 720, 2_020, 2_040):  # jitter at 700, a pause before 2020
        line.heard(block(20), RATE_HZ, now_ms)
    assert spans(whole(line, 3_000)[0]) == [(500, 600), (2_000, 2_040)]


def test_another_rate_of_the_caller_is_no_matter() -> None:
    line = Timeline(RATE_HZ)
    for now_ms in range(20, 1_020, 20):
        line.heard(np.full(160, 900, np.int16), 8_000, now_ms)
    (start_ms, end_ms), *more = spans(whole(line, 1_000)[0])
    assert start_ms < 10
    assert abs(end_ms - 1_000) < 25
    assert not more


def test_after_a_stall_silence_is_left_out_until_the_clock_is_right_again() -> None:
    line = Timeline(RATE_HZ)
    line.heard(block(100), RATE_HZ, 100)
    for _ in range(20):  # two seconds of silence at one moment, then a word in time
        line.heard(block(100, 0), RATE_HZ, 2_100)
    line.heard(block(100), RATE_HZ, 2_200)
    (_, first), (second, _) = spans(whole(line, 4_000)[0])
    assert first == 100
    assert 2_100 <= second <= 2_700


def test_audio_from_far_in_the_future_is_dropped() -> None:
    line = Timeline(RATE_HZ)
    for _ in range(130):
        line.heard(block(1_000), RATE_HZ, 0)
    assert line.dropped >= 9 * RATE_HZ
    assert line.left(0) <= 121 * RATE_HZ


def test_the_agent_is_heard_from_when_it_was_sent_without_gaps() -> None:
    line = Timeline(RATE_HZ)
    say(line, "r1", 0, 300, 1_000)
    say(line, "r1", 300, 60, 1_060)  # a lead: sent before it is due
    say(line, "r1", 360, 60, 1_120)
    assert spans(whole(line, 2_000)[1]) == [(1_000, 1_420)]


def test_a_gap_in_the_supply_is_a_gap_in_the_sound() -> None:
    line = Timeline(RATE_HZ)
    say(line, "r1", 0, 200, 1_000)
    say(line, "r1", 200, 200, 1_500)
    assert spans(whole(line, 2_000)[1]) == [(1_000, 1_200), (1_500, 1_700)]


def test_what_an_interruption_took_back_was_not_heard() -> None:
    line = Timeline(RATE_HZ)
    say(line, "r1", 0, 1_000, 1_000)
    line.taken_back("r1", 1_400)
    line.ended("r1", 400)
    say(line, "r2", 0, 200, 1_500)
    assert spans(whole(line, 3_000)[1]) == [(1_000, 1_400), (1_500, 1_700)]


def test_the_cut_is_that_of_the_history() -> None:
    line = Timeline(RATE_HZ)
    say(line, "r1", 0, 1_000, 1_000)
    line.taken_back("r1", 1_400)
    line.ended("r1", 250)  # the client says that it played less
    assert spans(whole(line, 3_000)[1]) == [(1_000, 1_250)]


def test_a_false_alarm_goes_on_where_it_was() -> None:
    line = Timeline(RATE_HZ)
    say(line, "r1", 0, 1_000, 1_000)
    line.taken_back("r1", 1_400)
    say(line, "r1", 350, 600, 1_800)
    line.ended("r1", 650)
    assert spans(whole(line, 4_000)[1]) == [(1_000, 1_400), (1_800, 2_100)]


def test_the_first_report_places_a_reply_where_it_was_heard() -> None:
    line = Timeline(RATE_HZ)
    say(line, "r1", 0, 500, 1_000)
    line.reported("r1", 100, 1_250)  # 150 ms on the way
    line.reported("r1", 200, 9_000)  # only the first one counts
    say(line, "r1", 500, 100, 1_300)
    assert spans(whole(line, 3_000)[1]) == [(1_150, 1_750)]


def test_reports_that_lie_move_nothing() -> None:
    for played_ms, now_ms in ((400, 1_100), (100, 9_000), (70_000, 1_400)):
        line = Timeline(RATE_HZ)
        say(line, "r1", 0, 500, 1_000)
        line.reported("r1", played_ms, now_ms)
        assert spans(whole(line, 3_000)[1]) == [(1_000, 1_500)]


def test_the_end_of_the_call_cuts_the_agent() -> None:
    line = Timeline(RATE_HZ)
    say(line, "r1", 0, 5_000, 1_000)
    left, right = whole(line, 1_500)
    assert len(left) == len(right) == RATE_HZ * 3 // 2
    assert spans(right) == [(1_000, 1_500)]


def test_taken_in_steps_it_is_the_same_and_waits_for_what_may_change() -> None:
    at_once, in_steps = Timeline(RATE_HZ), Timeline(RATE_HZ)
    parts: list[Pcm16] = []
    for now_ms in range(20, 6_000, 20):
        for line in (at_once, in_steps):
            line.heard(block(20, now_ms), RATE_HZ, now_ms)
            if now_ms % 60 == 0:
                say(line, "r1", now_ms - 60, 60, now_ms)
        parts.append(in_steps.take(in_steps.ready(now_ms)))
        assert sum(len(p) for p in parts) <= max(now_ms - HOLD_MS, 0) * RATE_HZ // 1000
    parts.append(in_steps.take(in_steps.left(6_000)))
    assert np.array_equal(np.concatenate(parts), at_once.take(at_once.left(6_000)))
