"""A loudspeaker without a sound card: what is heard when."""

from __future__ import annotations

import numpy as np

from antiphon.client.loudspeaker import Loudspeaker

RATE_HZ = 1_000


def loud(ms: int) -> np.ndarray:
    return np.full(ms, 1_000, np.int16)


def test_audio_is_heard_one_after_the_other() -> None:
    player = Loudspeaker(RATE_HZ)
    player.add("r1", loud(200), now_s=1.0)
    player.add("r1", loud(300), now_s=1.1)  # early: queued
    player.add("r2", loud(100), now_s=9.0)  # late: a gap
    assert [piece.start_s for piece in player.pieces] == [1.0, 1.2, 9.0]
    assert player.end_s == 9.1
    assert [player.played_ms("r1", at_s) for at_s in (0.5, 1.1, 1.25, 5.0)] == [0, 100, 250, 500]
    assert player.first_audible_s(1.3) == 1.3
    assert player.first_audible_s(2.0) == 9.0
    assert player.first_audible_s(9.2) is None
    assert round(player.last_audible_s(5.0) or 0, 3) == 1.499


def test_silence_is_not_audible() -> None:
    player = Loudspeaker(RATE_HZ)
    player.add("r1", np.concatenate([np.zeros(50, np.int16), loud(10)]), now_s=0.0)
    assert player.first_audible_s(0.0) == 0.05
    assert player.last_audible_s(0.05) is None


def test_clearing_drops_what_was_not_heard() -> None:
    player = Loudspeaker(RATE_HZ)
    player.add("r1", loud(200), now_s=0.0)
    player.add("r1", loud(200), now_s=0.0)
    player.clear(0.25)
    assert player.end_s == 0.25
    assert abs(player.played_ms("r1", 9.0) - 250) <= 1
    player.clear(0.3)
    assert abs(sum(len(piece.pcm) for piece in player.pieces) - 250) <= 1
    player.begin("r1", 150)  # the server goes on from the word that was cut
    player.add("r1", loud(100), now_s=1.0)
    assert player.played_ms("r1", 1.05) == 200
    assert player.played_ms("r1", 2.0) == 250


def test_render() -> None:
    player = Loudspeaker(RATE_HZ)
    player.add("r1", loud(100), now_s=1.0)
    heard = player.render(0.95, 1.05)
    assert list(np.flatnonzero(heard)) == list(range(50, 100))
    assert len(player.render(3.0, 2.0)) == 0
