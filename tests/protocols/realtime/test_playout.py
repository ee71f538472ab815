"""What the WebRTC track plays, without a network: order, silence, positions and the buffer's events."""

from __future__ import annotations

import numpy as np

from antiphon.models.ports import Pcm16
from antiphon.protocols.realtime.webrtc_playout import TrackPlayout

FRAME = 480


def sound(frames: float, level: int = 1000) -> Pcm16:
    return np.full(int(FRAME * frames), level, np.int16)


class Ears:
    """A playout and what it says."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str | int]] = []
        self.playout = TrackPlayout(
            lambda kind, response: self.log.append((kind, response)),
            lambda reply, ms: self.log.append((reply, ms)),
        )

    def take(self, frames: int) -> list[int]:
        """-> the loudest sample of each frame."""
        return [int(self.playout.take(FRAME).max()) for _ in range(frames)]


def test_silence_where_there_is_nothing() -> None:
    ears = Ears()
    assert ears.take(3) == [0, 0, 0]
    ears.playout.finish("r1")
    ears.playout.clear()
    assert ears.log == []


def test_one_reply_from_its_start_to_its_end() -> None:
    ears = Ears()
    ears.playout.begin("r1", 0)
    ears.playout.add("r1", "resp_1", sound(5.5))
    ears.playout.add("r1", "resp_1", sound(1.5))
    assert ears.log == []  # nothing has been sent yet
    assert ears.take(7) == [1000] * 7
    assert ears.log == [("started", "resp_1"), ("r1", 100), ("r1", 140)]
    assert ears.take(1) == [0]  # more may come
    ears.playout.add("r1", "resp_1", sound(1))
    ears.playout.finish("r1")
    ears.take(1)
    assert ears.log[3:] == [("r1", 160), ("stopped", "resp_1")]


def test_the_end_is_known_only_after_the_last_sound() -> None:
    ears = Ears()
    ears.playout.add("r1", "resp_1", sound(1))
    ears.take(1)
    assert ("stopped", "resp_1") not in ears.log
    ears.playout.finish("r1")
    assert ears.log == [("started", "resp_1"), ("r1", 20), ("stopped", "resp_1")]


def test_positions_go_on_where_the_reply_is_resumed() -> None:
    ears = Ears()
    ears.playout.begin("r1", 1_000)
    ears.playout.add("r1", "resp_1", sound(2))
    ears.take(2)
    assert ears.log[-1] == ("r1", 1_040)


def test_a_reply_that_waits_for_the_one_before() -> None:
    ears = Ears()
    ears.playout.begin("r1", 0)
    ears.playout.add("r1", "resp_1", sound(1.5, 1))
    ears.playout.finish("r1")
    ears.playout.begin("r2", 0)
    ears.playout.add("r2", "resp_2", sound(1, 2))
    ears.playout.finish("r2")
    assert ears.take(3) == [1, 2, 2]
    assert [each for each in ears.log if each[0] in ("started", "stopped")] == [
        ("started", "resp_1"),
        ("stopped", "resp_1"),
        ("started", "resp_2"),
        ("stopped", "resp_2"),
    ]


def test_cleared_at_once() -> None:
    ears = Ears()
    ears.playout.add("r1", "resp_1", sound(50))
    ears.take(3)
    ears.playout.clear()
    assert ears.take(2) == [0, 0]
    ears.playout.clear()
    assert ears.log == [("started", "resp_1"), ("cleared", "resp_1")]
    ears.playout.add("r2", "resp_2", sound(1))
    ears.playout.clear()  # it waited, and nobody heard of it
    assert ears.log[2:] == [("cleared", "resp_2")]
