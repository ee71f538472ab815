"""The playout ledger: how far the caller has listened, and which words that covers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.playout import REPORT_TRUST_MS, PlayoutLedger


def ledger(*segments: tuple[str, int], reports: bool = False) -> PlayoutLedger:
    made = PlayoutLedger(reports=reports)
    for text, duration_ms in segments:
        index = made.add_segment(text)
        made.add_audio(index, duration_ms)
        made.finish_segment(index)
    return made


# -- by the clock ------------------------------------------------------------------------------------


def test_nothing_is_heard_before_anything_is_sent() -> None:
    it = ledger(("one two", 1_000))
    assert it.position(10_000) == 0
    assert it.ends_at() is None
    assert it.heard(0) == ("", "one two")


def test_the_clock_starts_with_the_first_sent_audio_and_stops_at_what_was_sent() -> None:
    it = ledger(("one two three four", 2_000))
    it.sent(500, 1_000)
    assert [it.position(t) for t in (1_000, 1_200, 1_500, 9_000)] == [0, 200, 500, 500]
    assert it.ends_at() == 1_500


def test_more_audio_in_time_does_not_disturb_the_clock() -> None:
    it = ledger(("one two three four", 2_000))
    it.sent(500, 1_000)
    it.sent(1_000, 1_400)
    assert it.position(1_900) == 900
    assert it.ends_at() == 2_000


def test_after_an_underrun_the_clock_starts_where_the_sound_stopped() -> None:
    it = ledger(("one two three four", 2_000))
    it.sent(500, 1_000)
    it.sent(1_000, 3_000)  # 1.5 s of silence in between
    assert it.position(3_000) == 500
    assert it.position(3_200) == 700
    assert it.ends_at() == 3_500


def test_more_cannot_be_sent_than_was_made() -> None:
    it = ledger(("one", 300))
    it.sent(10_000, 0)
    assert it.sent_ms == 300


# -- by reports --------------------------------------------------------------------------------------


def test_a_report_is_extrapolated_but_not_for_long() -> None:
    it = ledger(("one two three four", 4_000), reports=True)
    it.sent(4_000, 0)
    assert it.report(1_000, 1_300)
    assert it.position(1_300) == 1_000
    assert it.position(1_400) == 1_100
    assert it.position(9_000) == 1_000 + REPORT_TRUST_MS


@pytest.mark.parametrize(
    ("played_ms", "position_ms"),
    [(-1, 400), (-(10**12), 400), (2_101, 2_000), (10**12, 2_000)],
)
def test_a_lie_is_clamped_and_called_one(played_ms: int, position_ms: int) -> None:
    it = ledger(("one two three four", 4_000), reports=True)
    it.sent(2_000, 0)
    assert it.report(400, 500)
    assert not it.report(played_ms, 500)
    assert it.position(500) == position_ms


def test_a_report_never_takes_back_an_earlier_one() -> None:
    it = ledger(("one two three four", 4_000), reports=True)
    it.sent(2_000, 0)
    it.report(1_500, 1_500)
    assert it.report(100, 1_600)
    assert it.position(1_600) >= 1_500


def test_a_player_that_is_stuck_does_not_put_off_the_end_for_ever() -> None:
    it = ledger(("one two three four", 4_000), reports=True)
    it.sent(4_000, 0)
    it.report(1_000, 1_000)
    ends_at = it.ends_at()
    for now_ms in range(1_100, 60_000, 100):
        it.report(1_000, now_ms)
    assert it.ends_at() == ends_at


# -- pause and resume --------------------------------------------------------------------------------


def test_pause_at_a_client_that_can_clear_stops_where_the_caller_is() -> None:
    it = ledger(("one two three four", 4_000))
    it.sent(1_000, 0)
    it.pause(600, cleared=True)
    assert it.position(9_000) == 600
    it.rewind(500)
    it.sent(800, 10_000)
    assert it.position(10_100) == 600


def test_pause_at_a_client_that_cannot_clear_counts_what_is_on_its_way() -> None:
    it = ledger(("one two three four", 4_000))
    it.sent(1_000, 0)
    it.pause(600, cleared=False)
    assert it.position(600) == 1_000


def test_resuming_repeats_the_word_that_was_cut_off() -> None:
    it = ledger(("one two three", 1_400), ("four five", 1_000))
    # "one " and "two " take 4 letters each of 14: 400 ms each
    assert [it.word_start(t) for t in (0, 399, 400, 799, 800, 1_399)] == [0, 0, 400, 400, 800, 800]
    assert it.word_start(1_450) == 1_400
    assert it.word_start(1_950) == 1_900
    assert it.word_start(5_000) == 5_000


def test_when_a_position_is_reached() -> None:
    it = ledger(("one two three four", 4_000))
    assert it.reaches_at(100) is None
    it.sent(1_000, 500)
    assert it.reaches_at(700) == 1_200
    assert it.reaches_at(1_001) is None
    it.report(100, 600)
    assert it.reaches_at(700) is None


# -- words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position_ms", "heard"),
    [
        (0, ""),
        (399, ""),
        (400, "one"),
        (799, "one"),
        (800, "one two"),
        (1_399, "one two"),
        (1_400, "one two three"),
        (2_400, "one two three four five"),
        (99_999, "one two three four five"),
    ],
)
def test_a_word_counts_once_its_last_sound_was_played(position_ms: int, heard: str) -> None:
    it = ledger(("one two three", 1_400), ("four five", 1_000))
    assert it.heard(position_ms)[0] == heard


def test_a_segment_that_is_still_being_made_never_counts_whole() -> None:
    it = PlayoutLedger(reports=False)
    index = it.add_segment("one two three")
    it.add_audio(index, 300)
    assert it.heard(300) == ("one two", "three")
    it.finish_segment(index)
    assert it.heard(300) == ("one two three", "")


def test_a_segment_without_sound_is_not_heard_before_what_precedes_it() -> None:
    it = ledger(("hm", 0), ("one two", 800), ("…1", 0), ("three", 500))
    assert it.heard(0) == ("", "hm one two …1 three")
    assert it.heard(800)[0] == "hm one two …1"


CLAUSES = st.lists(
    st.tuples(
        st.lists(
            st.sampled_from(["a", "word", "wonderful", "3.5,", "ok."]), min_size=1, max_size=6
        ),
        st.integers(0, 3_000),
        st.booleans(),
    ),
    max_size=5,
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(CLAUSES, st.lists(st.integers(0, 12_000), min_size=1, max_size=12))
def test_heard_and_unheard_are_all_words_and_heard_only_grows(
    segments: list[tuple[list[str], int, bool]], positions: list[int]
) -> None:
    it = PlayoutLedger(reports=False)
    words: list[str] = []
    for number, (segment, duration_ms, done) in enumerate(segments):
        index = it.add_segment(" ".join(segment))
        words += segment
        it.add_audio(index, duration_ms)
        if done or number < len(segments) - 1:  # only the last one can be unfinished
            it.finish_segment(index)
    before: list[str] = []
    for position_ms in sorted(positions):
        heard, unheard = (text.split() for text in it.heard(position_ms))
        assert heard + unheard == words
        assert heard[: len(before)] == before
        before = heard


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["sent", "report", "pause", "clear", "rewind", "wait"]),
        st.integers(-100, 5_000),
        st.integers(0, 700),
    ),
    max_size=30,
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(STEPS, st.booleans())
def test_the_position_is_never_negative_and_never_beyond_what_was_sent(
    steps: list[tuple[str, int, int]], reports: bool
) -> None:
    it = ledger(("one two three four", 4_000), reports=reports)
    now_ms = 0
    for what, ms, elapsed_ms in steps:
        now_ms += elapsed_ms
        match what:
            case "sent":
                it.sent(ms, now_ms)
            case "report":
                it.report(ms, now_ms)
            case "pause" | "clear":
                it.pause(now_ms, cleared=what == "clear")
            case "rewind":
                it.rewind(it.word_start(it.position(now_ms)))
        here_ms = it.position(now_ms)
        assert 0 <= here_ms <= it.sent_ms <= it.total_ms
        assert here_ms <= it.position(now_ms + 50)
