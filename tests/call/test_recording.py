"""Recordings of real calls: who is heard when, and that a recording never costs a call."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.call.support import RecordingDoor
from tests.support import loaded, run, say, until

from antiphon.audio.containers import decode_file
from antiphon.audio.growing_file import read_sides
from antiphon.call.audio_observer import AudioObserver
from antiphon.call.call import Call
from antiphon.call.model_tasks import Agent
from antiphon.call.recording import (
    RATE_HZ,
    CallRecording,
    DebugAudio,
    RecordingWorker,
    find_recording,
)
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.policy import Policy
from antiphon.models.ports import Pcm16

POLICY = Policy(greeting="", idle_prompt_after_ms=0, client_can_clear=True)


def sound(side: Pcm16) -> list[tuple[int, int]]:
    """(from, to) in ms of stretches with sound; pauses under 100 ms do not part them."""
    frame = RATE_HZ // 100
    loud = np.abs(side[: len(side) // frame * frame].reshape(-1, frame)).max(axis=1) > 100
    found: list[tuple[int, int]] = []
    for at in np.flatnonzero(loud) * 10:
        if found and at - found[-1][1] < 100:
            found[-1] = (found[-1][0], int(at) + 10)
        else:
            found.append((int(at), int(at) + 10))
    return found


async def record(folder: Path, *, interrupt: bool) -> tuple[Path, Call, RecordingDoor]:
    """A question and its answer, at once or broken off."""
    worker = RecordingWorker()
    async with loaded() as models:
        transport = RecordingDoor()
        recording = CallRecording("call", folder, "wav", worker)
        tap = AudioObserver(recording)
        session = Call(
            "call",
            models,
            transport,
            policy=POLICY,
            agent=Agent("Be brief."),
            observers=(tap.observe,),
        )
        session.listen_in(tap)
        session.post(ev.Started(False))
        session.feed_audio(say(550 if interrupt else 440, silence_ms=600), 16_000)
        if interrupt:
            await until(lambda: transport.sent_ms("r1") > 600, "the story is not heard")
            session.post(ev.RequestCancel())
        await until(lambda: transport.all(act.ReplyEnded), f"{transport.actions}")
        session.post(ev.HungUp())
        tap.finish(session.now_ms)
        await session.run()
    worker.close()
    return recording.path, session, transport


@pytest.mark.parametrize("interrupt", [False, True])
def test_both_sides_on_the_calls_clock(tmp_path: Path, interrupt: bool) -> None:
    path, session, transport = run(record(tmp_path / "new" / "folder", interrupt=interrupt))
    caller, agent = read_sides(path, RATE_HZ)
    turn = session.records[0]
    assert turn.first_sent_ms is not None
    assert turn.interrupted is interrupt
    (start_ms, _), *_ = sound(caller)
    assert start_ms <= 60
    spoken = sound(agent)
    assert abs(spoken[0][0] - turn.first_sent_ms) <= 40
    # Exactly what history says was heard, however much had been sent.
    heard_ms = sum(end - start for start, end in spoken)
    assert abs(heard_ms - turn.played_ms) <= 60 or not interrupt
    assert spoken[-1][1] - spoken[0][0] <= turn.played_ms + 60
    if interrupt:
        assert transport.sent_ms("r1") > turn.played_ms


def test_a_folder_that_cannot_be_written_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.ERROR):
        path, session, _ = run(record(tmp_path / "file", interrupt=False))
    assert session.records[0].status == "completed"
    assert "its recording could not be written" in caplog.text
    assert len(caplog.records) == 1
    assert not path.exists()


def test_a_full_disk_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "call.wav").symlink_to("/dev/full")
    with caplog.at_level(logging.ERROR):
        _, session, _ = run(record(tmp_path, interrupt=False))
    assert session.records[0].status == "completed"
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_a_slow_disk_bounds_what_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    worker, gate = RecordingWorker(max_waiting_bytes=64_000), threading.Event()

    def hold() -> None:
        gate.wait()

    worker.put(hold)
    recording = CallRecording("call", tmp_path, "wav", worker)
    second = np.full(RATE_HZ, 500, np.int16)
    with caplog.at_level(logging.ERROR):
        for number in range(1, 21):
            recording.heard(second, RATE_HZ, 1_000 * number)
    recording.finish(20_000)
    gate.set()
    worker.close()
    assert caplog.text.count("too slow") == 1
    caller, _ = read_sides(recording.path, RATE_HZ)
    assert len(caller) == 20 * RATE_HZ
    assert np.count_nonzero(caller) == 2 * RATE_HZ


def test_a_process_that_dies_leaves_what_was_said(tmp_path: Path) -> None:
    worker = RecordingWorker()
    recording = CallRecording("call", tmp_path, "opus", worker)
    pcm = say(440, 10_000)
    for at in range(0, len(pcm), 320):
        recording.heard(pcm[at : at + 320], RATE_HZ, (at + 320) // 16)
    worker.close()  # nobody ever finished it
    caller, agent = read_sides(recording.path, RATE_HZ)
    assert len(caller) == len(agent) > 7.5 * RATE_HZ


def test_debug_audio_is_as_it_came_with_a_line_of_diagnostics(tmp_path: Path) -> None:
    worker, folder = RecordingWorker(), tmp_path / "debug"
    debug = DebugAudio("call", folder, worker)
    narrow, wide = say(440, 1_000, rate_hz=8_000), say(440, 1_000, rate_hz=48_000)
    debug.heard(narrow, 8_000)
    debug.heard(wide, 48_000)
    debug.finish({"band": "normal"})
    worker.close()
    first = decode_file(folder / "call.caller.wav", rate_hz=None)
    second = decode_file(folder / "call.caller-2.wav", rate_hz=None)
    assert (first.rate_hz, second.rate_hz) == (8_000, 48_000)
    assert np.array_equal(first.pcm, narrow)
    assert np.array_equal(second.pcm, wide)
    lines = (folder / "calls.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"call": "call", "band": "normal"}]


def test_a_recording_is_found_in_any_format(tmp_path: Path) -> None:
    assert find_recording(tmp_path, "a") is None
    for name in ("a.flac", "b.opus"):
        (tmp_path / name).write_bytes(b"")
        assert find_recording(tmp_path, name[0]) is None
        (tmp_path / name).write_bytes(b"fLaC")
        assert find_recording(tmp_path, name[0]) == tmp_path / name


def test_a_call_that_sends_too_much_leaves_the_others_their_recordings(tmp_path: Path) -> None:
    worker, gate = RecordingWorker(max_call_bytes=1 << 20), threading.Event()

    def hold() -> None:
        gate.wait()

    worker.put(hold)
    hostile = CallRecording("hostile", tmp_path, "wav", worker)
    other = CallRecording("other", tmp_path, "wav", worker)
    for _ in range(200):
        hostile.heard(np.full(192_000, 500, np.int16), 192_000, 1_000)
    other.heard(np.full(RATE_HZ, 500, np.int16), RATE_HZ, 1_000)
    hostile.finish(1_000)
    other.finish(1_000)
    gate.set()
    worker.close()
    caller, _ = read_sides(other.path, RATE_HZ)
    assert np.count_nonzero(caller) == RATE_HZ
    assert len(read_sides(hostile.path, RATE_HZ)[0]) <= 4 * RATE_HZ


def test_steps_without_audio_are_bounded_too() -> None:
    """A client that sends a sample at a time, or reports without end."""
    worker, gate, done = RecordingWorker(max_call_bytes=100_000), threading.Event(), 0

    def hold() -> None:
        gate.wait()

    def step() -> None:
        nonlocal done
        done += 1

    worker.put(hold)
    taken = sum(worker.put(step, 200, "call") for _ in range(10_000))
    assert taken == 500
    gate.set()
    worker.close()
    assert done == 500
