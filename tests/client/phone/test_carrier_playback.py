"""What the caller hears, and when marks come back: Twilio's buffer in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.client.phone.carrier_playback import MAX_BUFFER_BYTES, Playback, is_audible
from antiphon.client.phone.clips import FRAME_BYTES, SILENCE

TONE = bytes([0x80]) * FRAME_BYTES  # full scale


def played(playback: Playback) -> str:
    """A letter per step: heard, silent but fed, dry."""
    return "".join(
        "#" if loud else "-" if fed else "."
        for loud, fed in zip(playback.audible, playback.fed, strict=True)
    )


def test_sound_begins_at_the_step_after_it_arrived_and_is_padded_to_the_step() -> None:
    playback = Playback(0.0)
    assert playback.advance(0.03) == []
    playback.add(TONE + TONE[:40] + SILENCE[:40])
    playback.advance(0.099)
    assert played(playback) == "..##."
    assert playback.heard[2 * FRAME_BYTES : 3 * FRAME_BYTES] == TONE
    assert playback.heard[3 * FRAME_BYTES + 40 : 4 * FRAME_BYTES] == SILENCE[:120]


def test_a_mark_comes_back_when_the_audio_before_it_has_been_heard() -> None:
    playback = Playback(0.0)
    playback.advance(0.0)
    playback.add(TONE * 2)
    assert playback.mark("two") == [], "step 0 has begun dry, but two steps are in the buffer"
    playback.add(TONE)
    assert playback.mark("three") == []
    assert playback.advance(0.059) == []
    assert playback.advance(0.060) == ["two"]
    assert playback.advance(0.080) == ["three"]


def test_a_mark_with_nothing_to_play_is_a_ping() -> None:
    playback = Playback(0.0)
    playback.advance(0.1)
    assert playback.mark("ping") == ["ping"]
    playback.add(TONE)
    playback.advance(0.12)
    assert playback.mark("after") == [], "the last frame is still being heard"
    assert playback.advance(0.14) == ["after"]


def test_clear_drops_the_rest_and_gives_back_every_mark_at_once() -> None:
    playback = Playback(0.0)
    for name in ("a", "b", "c"):
        playback.add(TONE * 5)
        playback.mark(name)
    playback.advance(0.0)
    assert playback.clear() == ["a", "b", "c"]
    assert playback.advance(0.2) == []
    assert played(playback) == "#" + "." * 10, "the step that had begun is heard to its end"
    playback.add(TONE)
    playback.mark("d")
    assert playback.advance(0.24) == ["d"], "positions go on after a clear"


def test_a_late_look_at_the_clock_changes_nothing() -> None:
    often, seldom = Playback(0.0), Playback(0.0)
    for one in (often, seldom):
        one.add(TONE * 7)
        one.mark("m")
    found = [name for step in range(20) for name in often.advance(step * 0.02)]
    assert seldom.advance(0.38) == found == ["m"]
    assert seldom.heard == often.heard


def test_no_more_than_ten_minutes_are_kept() -> None:
    playback = Playback(0.0)
    assert playback.add(bytes(MAX_BUFFER_BYTES))
    assert not playback.add(TONE)
    assert playback.dropped_bytes == FRAME_BYTES


def test_only_what_can_be_heard_is_audible() -> None:
    assert is_audible(TONE)
    assert not is_audible(SILENCE)
    assert not is_audible(b"")
    assert not is_audible(bytes([0xF0, 0x70]) * 80), "about -47 dBFS"


Step = st.one_of(
    st.integers(1, 400).map(lambda size: ("add", size)),
    st.just(("mark", 0)),
    st.just(("clear", 0)),
    st.integers(0, 200).map(lambda ms: ("wait", ms)),
)


@given(st.lists(Step, max_size=60))
def test_every_mark_comes_back_once_in_order_and_the_clock_never_drifts(
    steps: list[tuple[str, int]],
) -> None:
    playback, now_s, sent, back = Playback(0.0), 0.0, 0, []
    for what, size in [*steps, ("wait", 30_000)]:
        back += playback.advance(now_s)
        if what == "add":
            playback.add(TONE * (size // 160) + TONE[: size % 160])
        elif what == "mark":
            back += playback.mark(str(sent))
            sent += 1
        elif what == "clear":
            back += playback.clear()
        now_s += size / 1000 if what == "wait" else 0
    back += playback.advance(now_s)
    assert back == [str(number) for number in range(sent)]
    assert len(playback.heard) == playback.steps * FRAME_BYTES
    assert playback.steps * 0.02 > now_s >= (playback.steps - 1) * 0.02 - 1e-9
