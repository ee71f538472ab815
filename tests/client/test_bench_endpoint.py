"""`antiphon bench endpoint`: pauses out of probabilities, rules tried on them, and what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from antiphon.client.bench import endpoint, pauses
from antiphon.client.bench.pauses import Heard, Pause, Recording
from antiphon.core.policy import Policy
from antiphon.errors import ConfigError

RECORDING = Recording("a.wav", 320, 1_600, Path("a.wav"))


def windows(*spoken: tuple[int, int], until_ms: int = 4_000) -> list[float]:
    """Probabilities of 32 ms each, high where somebody speaks."""
    ends = range(32, until_ms, 32)
    return [0.9 if any(a < end <= b for a, b in spoken) else 0.1 for end in ends]


def turn(*, inner_ms: int = 320, words: float = 0.1, sound: float = 0.3) -> Heard:
    """A pause within the sentence after 1 s, and the end at 2 s."""
    inner = Pause(1_000, 1_000 + inner_ms, 100, {64: sound}, "I would like", words)
    last = Pause(2_050, None, 100, {64: 0.99}, "I would like some tea.", 0.9)
    return Heard("a.wav", 100, 2_000, [inner, last])


def test_pauses_are_those_that_the_core_sees() -> None:
    found = pauses.find_pauses(windows((320, 960), (1_280, 1_600)), RECORDING)
    assert [(p.onset_ms, p.voiced_until_ms, p.resumed_ms) for p in found] == [
        (320, 960, 1_344),
        (320, 1_600, None),
    ]


def test_a_click_before_the_first_word_is_no_turn() -> None:
    found = pauses.find_pauses(windows((32, 160), (800, 1_600)), RECORDING)
    assert [p.onset_ms for p in found] == [800]


def test_a_recording_that_ends_with_its_last_word_gets_room() -> None:
    pcm = np.full(RECORDING.speech_end_ms * 16, 7, np.int16)
    heard = pauses.with_room(pcm, RECORDING)
    assert len(heard) == (RECORDING.speech_end_ms + pauses.TAIL_MS) * 16
    assert set(heard.tolist()) == {7}


def test_a_rule_that_commits_within_the_sentence_cuts_off() -> None:
    found = endpoint.decide(turn(), endpoint.by_silence(256))
    assert found is not None
    assert found.cut_off
    assert found.silence_ms == 256


def test_a_rule_that_waits_longer_than_the_pause_does_not() -> None:
    found = endpoint.decide(turn(), endpoint.by_silence(400))
    assert found is not None
    assert not found.cut_off
    assert found.latency_ms == 50 + 416  # the next window


def test_nobody_heard_is_no_turn() -> None:
    silent = Heard("b.wav", 0, 100, [])
    assert endpoint.figures([silent, turn()], endpoint.by_silence(400))["turns"] == 1


def test_a_cut_off_says_which_signs_said_over() -> None:
    heard = [turn(), turn(words=0.8), turn(sound=0.9), turn(words=0.8, sound=0.9)]
    reasons = endpoint.figures(heard, endpoint.by_silence(256))["reasons"]
    assert [reason["signs"] for reason in reasons] == [
        ["silence"],
        ["words"],
        ["detector"],
        ["detector", "words"],
    ]


def test_our_rule_waits_through_a_pause_that_the_words_do_not_end() -> None:
    found = endpoint.figures([turn(inner_ms=900)], endpoint.ours(Policy()))
    assert (found["cut_off"], found["latency_ms"]["median"]) == (0, 50 + 256)


def test_more_patience_never_cuts_off_more() -> None:
    sounds, lengths = (0.4, 0.95), (800, 1_100, 1_700)
    heard = [turn(inner_ms=ms, words=0.4, sound=p) for ms in lengths for p in sounds]
    shares = [
        endpoint.figures(heard, rule)["cut_off_share"]
        for _, rule in endpoint.rules(Policy())["ours"]
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]


def test_the_least_latency_at_each_share_of_cut_offs() -> None:
    points = [
        {"cut_off_share": 0.2, "mean_ms": 300.0},
        {"cut_off_share": 0.1, "mean_ms": 500.0},
        {"cut_off_share": 0.04, "mean_ms": 900.0},
    ]
    assert endpoint.at_levels(points) == {"2%": None, "5%": 900.0, "10%": 500.0, "20%": 300.0}


def test_the_chart_has_a_line_for_each_rule() -> None:
    image = endpoint.chart(endpoint.summary([turn(), turn(inner_ms=900)], Policy()))
    assert image.count("<polyline") == 4


def test_what_was_heard_can_be_kept(tmp_path: Path) -> None:
    pauses.save(tmp_path / "signs.jsonl", [turn(), turn(words=0.5)])
    assert pauses.load(tmp_path / "signs.jsonl") == [turn(), turn(words=0.5)]


@pytest.mark.parametrize("index", [None, "file\tspeech_end_ms\na.wav\t5\n", "nothing\n1\n"])
def test_an_index_that_cannot_be_used_is_named(tmp_path: Path, index: str | None) -> None:
    if index is not None:
        (tmp_path / "index.tsv").write_text(index)
    with pytest.raises(ConfigError, match=r"index\.tsv"):
        pauses.read_index(tmp_path)


@pytest.mark.parametrize("signs", ["{", '{"file": "a"}\n', "[1]\n"])
def test_signs_that_cannot_be_read_are_named(tmp_path: Path, signs: str) -> None:
    (tmp_path / "signs.jsonl").write_text(signs)
    with pytest.raises(ConfigError, match=r"signs\.jsonl"):
        pauses.load(tmp_path / "signs.jsonl")
