"""Memory is given back after calls, seldom, and only where there is something to gain."""

from __future__ import annotations

import asyncio

import pytest
from tests.support import run, until

from antiphon.server import memory_trimmer
from antiphon.server.memory_trimmer import MemoryTrimmer, resident_bytes

MB = 1 << 20


class Machine:
    """Memory that a test can see."""

    def __init__(self) -> None:
        self.bytes = 100 * MB
        self.trims = 0

    def trim(self, pad: int) -> int:
        self.trims += 1
        self.bytes = 120 * MB
        return 1


def trimmer(machine: Machine) -> MemoryTrimmer:
    return MemoryTrimmer(machine.trim, lambda: machine.bytes)


def test_growth_is_given_back_once_and_not_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(memory_trimmer, "_AFTER_S", 0.0)
        machine = Machine()
        found = trimmer(machine)
        machine.bytes = 400 * MB
        for _ in range(50):
            found.call_ended()
        await until(lambda: machine.trims == 1)
        machine.bytes = 400 * MB
        found.call_ended()
        timer = found._timer
        assert timer is not None
        assert timer.when() >= asyncio.get_running_loop().time() + memory_trimmer._EVERY_S - 1
        await found.close()
        assert timer.cancelled()

    run(main())


def test_a_call_that_left_nothing_costs_no_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(memory_trimmer, "_AFTER_S", 0.0)
        machine = Machine()
        found = trimmer(machine)
        machine.bytes += memory_trimmer._GAIN_BYTES - 1
        found.call_ended()
        await until(lambda: found._timer is None)
        assert machine.trims == 0
        machine.bytes += 1
        monkeypatch.setattr(memory_trimmer, "_EVERY_S", 0.0)
        found._not_before_s = 0.0
        found.call_ended()
        await until(lambda: machine.trims == 1)
        await found.close()

    run(main())


def test_it_knows_this_process() -> None:
    assert resident_bytes() > MB
