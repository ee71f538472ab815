"""Recordings of calls: one stereo file per call, caller left, agent right as heard; and raw incoming audio on request.

What is said on the event loop is put into a bounded line to one worker thread, which mixes, encodes and writes. A disk
that is full, slow or not writable costs recordings, never a call. Files are readable at any moment, so a process that
is killed loses the last two seconds.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av.error

from antiphon.audio.growing_file import EXTENSIONS, GrowingFile, GrowingFormat
from antiphon.call.timeline import Timeline
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.errors import AntiphonError
from antiphon.files import private_folder, write_private
from antiphon.models.ports import Pcm16

if TYPE_CHECKING:
    from antiphon.call.transport import ObservedCall

log = logging.getLogger(__name__)

RATE_HZ = 16_000
MAX_WAITING_BYTES = 32 << 20
"""Audio of all calls together that waits for the worker: some minutes. More is left out of the recordings."""
MAX_CALL_BYTES = 8 << 20
"""Of one call: a caller who sends too much does not cost the others their recordings."""
DIAGNOSTICS_FILE = "calls.jsonl"
_WORD_BYTES = 200
"""What a step counts for at least: a client may send reports without end."""
_WRITE_MS = 500
_LONGEST_WRITE = 10 * RATE_HZ
"""Samples: a long silence is written in steps."""
_FAILURES = (OSError, AntiphonError, av.error.FFmpegError)

Step = Callable[[], None]


class RecordingWorker:
    """The thread that writes all recordings of a process, and the bounded line to it."""

    def __init__(
        self, max_waiting_bytes: int = MAX_WAITING_BYTES, max_call_bytes: int = MAX_CALL_BYTES
    ) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="recordings")
        self._lock = threading.Lock()
        self._limit_bytes, self._call_limit_bytes = max_waiting_bytes, max_call_bytes
        self._waiting_bytes = 0
        self._of_call: dict[str, int] = {}

    def put(self, step: Step, size_bytes: int = 0, call_id: str = "") -> bool:
        """Have it done after all that was put before. -> False when the line, or its call's share of it, is full and
        it never will be.

        A step of size 0 always finds room: there are a few of them per call.
        """
        with self._lock:
            mine_bytes = self._of_call.get(call_id, 0) + size_bytes
            full = self._waiting_bytes + size_bytes > self._limit_bytes
            if size_bytes and (full or mine_bytes > self._call_limit_bytes):
                return False
            self._count(call_id, size_bytes)

        def work() -> None:
            try:
                step()
            finally:
                with self._lock:
                    self._count(call_id, -size_bytes)

        try:
            self._pool.submit(work)
        except RuntimeError:  # closed: the process ends
            return False
        return True

    def _count(self, call_id: str, size_bytes: int) -> None:
        self._waiting_bytes += size_bytes
        self._of_call[call_id] = self._of_call.get(call_id, 0) + size_bytes
        if not self._of_call[call_id]:
            del self._of_call[call_id]

    def close(self) -> None:
        """Blocking, until everything is written."""
        self._pool.shutdown(wait=True)


class _Job:
    """What both kinds of file share: the line to the worker, and giving up after the first failure."""

    def __init__(self, call_id: str, worker: RecordingWorker, what: str) -> None:
        self._call_id = call_id
        self._worker = worker
        self._what = what
        self._failed = False
        self._full = False

    def _put(self, step: Step, size_bytes: int = 0) -> None:
        if self._failed:
            return
        put = self._worker.put(lambda: self._guarded(step), size_bytes, self._call_id)
        if not put and not self._full:
            self._full = True
            message = "call %s: the disk is too slow for its %s; some of it is left out"
            log.error(message, self._call_id, self._what)

    def _guarded(self, step: Step) -> None:
        if self._failed:
            return
        try:
            step()
        except _FAILURES as error:
            self._fail(getattr(error, "strerror", None) or str(error))
        except Exception:  # a bug of ours costs this recording and not the next
            log.exception("call %s: its %s", self._call_id, self._what)
            self._fail("internal error")

    def _fail(self, reason: str) -> None:
        self._failed = True
        log.error("call %s: its %s could not be written: %s", self._call_id, self._what, reason)
        with suppress(*_FAILURES):
            self._give_up()

    def _give_up(self) -> None:
        raise NotImplementedError


class CallRecording(_Job):
    """Records one call, from the event loop. `finish` when it is over; nothing here blocks or raises."""

    def __init__(
        self, call_id: str, folder: Path, fmt: GrowingFormat, worker: RecordingWorker
    ) -> None:
        super().__init__(call_id, worker, "recording")
        self.path = folder / f"{call_id}{EXTENSIONS[fmt]}"
        self._fmt: GrowingFormat = fmt
        self._timeline = Timeline(RATE_HZ)
        self._file: GrowingFile | None = None
        self._put(self._open)

    # -- on the event loop --------------------------------------------------------------------------

    def heard(self, pcm: Pcm16, rate_hz: int, now_ms: int) -> None:
        """The caller's audio as it came."""
        line = self._timeline
        self._put(
            lambda: self._then(now_ms, lambda: line.heard(pcm, rate_hz, now_ms)),
            max(pcm.nbytes, _WORD_BYTES),
        )

    def sent(self, reply: str, from_ms: float, pcm: Pcm16, rate_hz: int, now_ms: int) -> None:
        """A piece of the agent's voice on its way out."""
        line = self._timeline
        self._put(
            lambda: self._then(now_ms, lambda: line.sent(reply, from_ms, pcm, rate_hz, now_ms)),
            max(pcm.nbytes, _WORD_BYTES),
        )

    def taken_back(self, reply: str, now_ms: int) -> None:
        """The client drops what it has not played."""
        self._put(lambda: self._timeline.taken_back(reply, now_ms), _WORD_BYTES)

    def observe(self, call: ObservedCall, event: ev.Event | None, out: list[act.Action]) -> None:
        """An observer of the call: where playback stood."""
        now_ms = call.now_ms
        if isinstance(event, ev.Played):
            reply, played_ms = event.reply, event.played_ms
            self._put(lambda: self._timeline.reported(reply, played_ms, now_ms), _WORD_BYTES)
        if not call.view.policy.client_can_clear:
            return  # it plays what it has, whatever history says
        for action in out:
            if isinstance(action, act.TurnRecorded) and action.record.interrupted:
                self._ended(action.record.reply, action.record.played_ms)

    def _ended(self, reply: str, played_ms: int) -> None:
        self._put(lambda: self._timeline.ended(reply, played_ms), _WORD_BYTES)

    def finish(self, now_ms: int) -> None:
        """The call is over: the rest is written and the file closed, in its time."""
        self._put(lambda: self._finish(now_ms))

    # -- on the worker's thread ---------------------------------------------------------------------

    def _open(self) -> None:
        private_folder(self.path.parent)
        self._file = GrowingFile(self.path, self._fmt, RATE_HZ, 2)

    def _then(self, now_ms: int, step: Step) -> None:
        step()
        ready = self._timeline.ready(now_ms)
        if ready >= _WRITE_MS * RATE_HZ // 1000:
            self._write(ready)

    def _write(self, samples: int) -> None:
        assert self._file is not None
        while samples > 0:
            count = min(samples, _LONGEST_WRITE)
            self._file.write(self._timeline.take(count))
            samples -= count

    def _finish(self, now_ms: int) -> None:
        self._write(self._timeline.left(now_ms))
        self._give_up()
        if dropped := self._timeline.dropped:
            log.warning(
                "call %s: %.1f s of the caller came too fast to be recorded",
                self._call_id,
                dropped / RATE_HZ,
            )

    def _give_up(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class DebugAudio(_Job):
    """The caller's audio before anything is done to it, as WAV: `CALL.caller.wav`, one more file per change of rate."""

    def __init__(self, call_id: str, folder: Path, worker: RecordingWorker) -> None:
        super().__init__(call_id, worker, "debug audio")
        self._folder = folder
        self._file: GrowingFile | None = None
        self._rate_hz = 0
        self._files = 0

    def heard(self, pcm: Pcm16, rate_hz: int) -> None:
        """More of it."""
        self._put(lambda: self._write(pcm, rate_hz), max(pcm.nbytes, _WORD_BYTES))

    def finish(self, diagnostics: Mapping[str, Any]) -> None:
        """`diagnostics`: kept as one more line of `calls.jsonl` beside the files."""
        line = json.dumps({"call": self._call_id, **diagnostics}, ensure_ascii=False)
        self._put(lambda: self._finish(line))

    def _write(self, pcm: Pcm16, rate_hz: int) -> None:
        if self._file is None or rate_hz != self._rate_hz:
            self._give_up()
            private_folder(self._folder)
            self._files += 1
            suffix = f"-{self._files}" if self._files > 1 else ""
            path = self._folder / f"{self._call_id}.caller{suffix}.wav"
            self._file, self._rate_hz = GrowingFile(path, "wav", rate_hz), rate_hz
        self._file.write(pcm)

    def _finish(self, line: str) -> None:
        self._give_up()
        private_folder(self._folder)
        write_private(self._folder / DIAGNOSTICS_FILE, line + "\n", append=True)

    def _give_up(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def find_recording(folder: Path, call_id: str) -> Path | None:
    """The recording of a call, in whichever format it was made. An empty one, of a call of no length, is none."""
    paths = (folder / f"{call_id}{extension}" for extension in EXTENSIONS.values())
    return next((path for path in paths if path.is_file() and path.stat().st_size), None)
