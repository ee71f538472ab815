"""One more call is refused while the machine is late, and taken again when it has recovered."""

from __future__ import annotations

from pathlib import Path

from tests.server.support import client, serving
from tests.support import run

from antiphon.models.scheduler import SchedulerStats
from antiphon.server.load_shedding import LoadShedder


def lane(served: int, waited_ms: int) -> SchedulerStats:
    return SchedulerStats(0, 0, waited_ms, served, 0, 0, 0, 0)


def test_a_late_loop_leaves_no_room_until_it_has_caught_up() -> None:
    load_shedder = LoadShedder(100, 0)
    load_shedder.observe(0.9, {}, 0.5)
    assert "timers are" in load_shedder.shortage()
    for _ in range(30):
        load_shedder.observe(0.0, {}, 0.5)
    assert load_shedder.shortage() == ""


def test_one_late_timer_is_not_yet_a_busy_machine() -> None:
    load_shedder = LoadShedder(150, 0)
    load_shedder.observe(0.2, {}, 0.5)
    assert load_shedder.shortage() == ""


def test_work_that_waits_for_a_model_leaves_no_room() -> None:
    load_shedder = LoadShedder(0, 1_000)
    waited_ms = 0
    for second in range(1, 20):
        waited_ms += 2 * 3_000
        load_shedder.observe(0.0, {"stt:moonshine": lane(2 * second, waited_ms)}, 1.0)
    assert "work waits" in load_shedder.shortage()


def test_speech_made_ahead_may_wait() -> None:
    load_shedder = LoadShedder(0, 1_000)
    for second in range(1, 20):
        load_shedder.observe(0.0, {"tts:piper": lane(second, 9_000 * second)}, 1.0)
    assert load_shedder.shortage() == ""


def test_the_second_caller_is_told_and_the_first_is_not_hurt(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, server__max_loop_lag_ms=100) as served:
            served.calls.load_shedder.loop_lag_ms = 5_000.0
            async with client(served) as first:
                await first.wait("connected")
                served.calls.load_shedder.loop_lag_ms = 5_000.0
                async with client(served) as second:
                    assert "the machine is busy" in (await second.wait("error"))["message"]
                    assert (await second.wait_closed())[0] == 1013
                await first.send(type="ping")
                await first.wait("pong")

    run(main())
