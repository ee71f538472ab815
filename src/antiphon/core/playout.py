"""The playout ledger of one reply: what was made, sent and heard, and which words that covers.

The position in playout comes from reports of the client where there are any, else from a clock that starts with the
first audio that was sent. There are only durations here, no audio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

REPORT_TRUST_MS = 250
"""A report is extrapolated by the clock for at most this long: clients report every 100 to 200 ms."""


REPORT_SLACK_MS = 100
"""Clients round, and count what their resampler adds: so much beyond what was sent is no lie."""


@dataclass(slots=True)
class SegmentPlayout:
    """One segment: its text, and where its audio lies in the reply."""

    text: str
    start_ms: int = 0
    duration_ms: int = 0
    done: bool = False


class PlayoutView(Protocol):
    """What others may read of a reply's playout."""

    @property
    def total_ms(self) -> int: ...
    @property
    def sent_ms(self) -> int: ...
    def position(self, now_ms: int) -> int: ...
    def heard(self, position_ms: int) -> tuple[str, str]: ...
    def word_start(self, position_ms: int) -> int: ...


class PlayoutLedger:
    """`reports`: the client says how much it has played."""

    def __init__(self, *, reports: bool) -> None:
        self.segments: list[SegmentPlayout] = []
        self.total_ms = 0
        self.sent_ms = 0
        self.paused = False
        """What is sent left before the pause, and does not count."""
        self._reports = reports
        self._base_ms = 0
        self._since_ms: int | None = None
        """Clock time at which `_base_ms` was the position; None while nothing plays."""
        self._not_before_ms = 0

    def hold(self, until_ms: int) -> None:
        """The client is busy with an earlier reply until then: this one starts to play afterwards."""
        self._not_before_ms = until_ms

    # -- what was made -----------------------------------------------------------------------------

    def add_segment(self, text: str) -> int:
        """-> index of the new segment."""
        self.segments.append(SegmentPlayout(text))
        return len(self.segments) - 1

    def add_audio(self, segment: int, duration_ms: int) -> None:
        """Audio arrives segment by segment, in order."""
        part = self.segments[segment]
        if not part.duration_ms:
            part.start_ms = self.total_ms
        part.duration_ms += duration_ms
        self.total_ms += duration_ms

    def finish_segment(self, segment: int) -> None:
        part = self.segments[segment]
        if not part.duration_ms:
            part.start_ms = self.total_ms
        part.done = True

    @property
    def made(self) -> bool:
        return all(segment.done for segment in self.segments)

    # -- what was sent and heard --------------------------------------------------------------------

    def sent(self, sent_ms: int, now_ms: int) -> None:
        """Cumulative. After a gap in supply the clock starts anew where the sound stopped."""
        position = self.position(now_ms)
        if self._since_ms is None or position >= self.sent_ms:
            self._base_ms, self._since_ms = position, max(now_ms, self._not_before_ms)
        self.sent_ms = max(self.sent_ms, min(sent_ms, self.total_ms))

    def report(self, played_ms: int, now_ms: int) -> bool:
        """A client's word on its position, held within reason: never beyond what was sent, never backwards.

        -> False when the report was a lie and had to be clamped.
        """
        honest = 0 <= played_ms <= self.sent_ms + REPORT_SLACK_MS
        played_ms = min(max(played_ms, 0), self.sent_ms)
        if (
            played_ms > self._base_ms
        ):  # a report that repeats itself must not put off the end for ever
            self._base_ms = played_ms
            if self._since_ms is not None:
                self._since_ms = now_ms
        self._reports = True
        return honest

    def pause(self, now_ms: int, *, cleared: bool) -> None:
        """Sending has stopped. `cleared`: what was sent and not played is dropped at the client."""
        self._base_ms = self.position(now_ms) if cleared else self.sent_ms
        self._since_ms, self.paused = None, True

    def rewind(self, to_ms: int) -> None:
        """Sending goes on from here: what lies after it was dropped."""
        self.sent_ms = self._base_ms = to_ms
        self._since_ms, self.paused = None, False

    def position(self, now_ms: int) -> int:
        """How much of the reply has been heard by now."""
        if self._since_ms is None:
            return self._base_ms
        elapsed_ms = now_ms - self._since_ms
        if self._reports:
            elapsed_ms = min(elapsed_ms, REPORT_TRUST_MS)
        return min(self._base_ms + max(elapsed_ms, 0), self.sent_ms)

    def ends_at(self) -> int | None:
        """Clock time at which everything sent will have been played; None while nothing plays."""
        if self._since_ms is None:
            return None
        return self._since_ms + self.sent_ms - self._base_ms

    def reaches_at(self, position_ms: int) -> int | None:
        """Clock time at which this position will have been heard; None while only a report or more audio can tell."""
        if self._since_ms is None or self._reports or position_ms > self.sent_ms:
            return None
        return self._since_ms + max(position_ms - self._base_ms, 0)

    # -- words --------------------------------------------------------------------------------------

    def heard(self, position_ms: int) -> tuple[str, str]:
        """-> (text heard, text not heard). A word counts once its last sound has been played.

        Within a segment words are placed in proportion to their letters, which is within a word of the truth for
        segments of a few seconds.
        """
        heard: list[str] = []
        unheard: list[str] = []
        for segment in self.segments:
            done, rest = _split_words(segment, position_ms)
            (unheard if unheard else heard).append(done)
            unheard.append(rest) if rest else None
        return _join(heard), _join(unheard)

    def word_start(self, position_ms: int) -> int:
        """Position of the word being said at `position_ms`, so that a resumed reply repeats it whole."""
        for segment in self.segments:
            if segment.start_ms <= position_ms < segment.start_ms + segment.duration_ms:
                best_ms = segment.start_ms
                for start_ms, _ in _word_times(segment):
                    if start_ms <= position_ms:
                        best_ms = start_ms
                return best_ms
        return position_ms


def _word_times(segment: SegmentPlayout) -> list[tuple[int, int]]:
    """(start, end) of each word, relative to the reply."""
    words = segment.text.split()
    letters = sum(len(word) + 1 for word in words) or 1
    times: list[tuple[int, int]] = []
    count = 0
    for word in words:
        start = segment.start_ms + segment.duration_ms * count // letters
        count += len(word) + 1
        times.append((start, segment.start_ms + segment.duration_ms * count // letters))
    return times


def _split_words(segment: SegmentPlayout, position_ms: int) -> tuple[str, str]:
    if segment.done and position_ms >= max(segment.start_ms + segment.duration_ms, 1):
        return segment.text, ""
    if position_ms <= segment.start_ms or not segment.duration_ms:
        return "", segment.text
    words = segment.text.split()
    # While a segment is still being synthesised its length is unknown: what is there may be only its beginning,
    # so a word counts only when even the audio made so far would cover it.
    heard = sum(1 for _, end_ms in _word_times(segment) if end_ms <= position_ms)
    if not segment.done:
        heard = min(heard, max(len(words) - 1, 0))
    return " ".join(words[:heard]), " ".join(words[heard:])


def _join(parts: list[str]) -> str:
    return " ".join(part.strip() for part in parts if part.strip())
