"""What is kept of calls besides their traces: recordings, debug audio, and a line on the caller's audio.

One worker thread per process writes for all calls.
"""

from __future__ import annotations

import logging

from antiphon.call.audio_diagnosis import AudioReport
from antiphon.call.audio_observer import AudioObserver
from antiphon.call.recording import CallRecording, DebugAudio, RecordingWorker
from antiphon.config import Settings
from antiphon.files import make_private

log = logging.getLogger("antiphon.audio")


_KEPT = (".jsonl", ".wav", ".ogg", ".opus", ".flac")
"""Traces, recordings, and what is written beside debug audio."""


def close_to_others(settings: Settings) -> None:
    """Calls that were kept by an earlier version, or under another umask, are for their owner only. Blocking."""
    for folder in (settings.trace_dir, settings.recording_dir, settings.debug_audio_dir):
        if folder is not None:
            make_private(folder, _KEPT)


class Recordings:
    """Of one process. `tap` for each call, `end` when it is over, `close` at the end of the process."""

    def __init__(self, settings: Settings) -> None:
        self._recordings = settings.recording_dir
        self._format = settings.recording_format
        self._debug = settings.debug_audio_dir
        self._worker: RecordingWorker | None = None

    def tap(self, call_id: str) -> AudioObserver:
        """What listens in on a new call, as the settings say."""
        if self._recordings is None and self._debug is None:
            return AudioObserver()
        self._worker = worker = self._worker or RecordingWorker()
        recording = debug = None
        if self._recordings is not None:
            recording = CallRecording(call_id, self._recordings, self._format, worker)
        if self._debug is not None:
            debug = DebugAudio(call_id, self._debug, worker)
        return AudioObserver(recording, debug)

    def end(self, tap: AudioObserver, now_ms: int) -> AudioReport:
        """A call is over -> its audio in figures, which are logged as well."""
        tap.finish(now_ms)
        report = tap.diagnosis.report()
        if report.seconds:
            fields = {f"audio_{name}": value for name, value in report.fields().items()}
            log.info("the caller's audio: %s", report.sentence(), extra=fields)
        return report

    def close(self) -> None:
        """Blocking, until every file is complete."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
