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


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(memory_trimmer, "_AFTER_S", 0.0)
    return Machine()


def trimmer(machine: Machine) -> MemoryTrimmer:
    return MemoryTrimmer(machine.trim, lambda: machine.bytes)


def test_calls_that_end_together_are_one_occasion(machine: Machine) -> None:
    async def main() -> None:
        found = trimmer(machine)
        for left in reversed(range(50)):
            found.call_ended(left)
        await until(lambda: machine.trims == 1)
        found.call_ended(0)  # again, but not soon
        timer = found._timer
        assert timer is not None
        assert timer.when() >= asyncio.get_running_loop().time() + memory_trimmer._EVERY_S - 1
        await found.close()
        assert timer.cancelled()
        assert machine.trims == 1

    run(main())


@pytest.mark.parametrize(("left", "trims"), [(60, 0), (51, 0), (50, 1), (0, 1)])
def test_when_half_of_the_calls_have_ended(machine: Machine, left: int, trims: int) -> None:
    async def main() -> None:
        found = trimmer(machine)
        found._last_s = asyncio.get_running_loop().time() - memory_trimmer._EVERY_S
        found.call_ended(99)
        found.call_ended(left)
        await until(lambda: found._timer is None)
        await found.close()
        assert machine.trims == trims

    run(main())


@pytest.mark.parametrize(("grown", "trims"), [(63 * MB, 0), (64 * MB, 1)])
def test_when_memory_has_grown_though_most_go_on(machine: Machine, grown: int, trims: int) -> None:
    async def main() -> None:
        found = trimmer(machine)
        machine.bytes += grown
        found.call_ended(99)
        await until(lambda: found._timer is None)
        await found.close()
        assert machine.trims == trims

    run(main())


def test_it_knows_this_process() -> None:
    assert resident_bytes() > MB
