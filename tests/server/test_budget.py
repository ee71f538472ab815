"""What one connection may ask for, on a clock that the tests turn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from tests.support import run

from antiphon.server.budget import Allowance, Bucket, OverBudget, WorkBudget, WorkRate

SMALL = Allowance(
    messages=WorkRate(10, 100),
    requests=WorkRate(1, 5),
    size_bytes=WorkRate(1_000, 10_000),
    audio_s=WorkRate(2, 60),
    work_s=WorkRate(0.1, 1.0),
    patience_s=30.0,
)


@dataclass
class Time:
    now_s: float = 100.0
    cpu_s: float = 0.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.now_s += delay_s

    def budget(self, allowance: Allowance = SMALL) -> WorkBudget:
        return WorkBudget(allowance, lambda: self.now_s, lambda: self.cpu_s, self.sleep)


def test_a_burst_is_free_and_a_debt_is_waited_for() -> None:
    bucket = Bucket(WorkRate(10, 100), 0.0)
    assert bucket.spend(100, 0.0) == 0
    assert bucket.spend(30, 0.0) == 3.0
    assert bucket.spend(0, 3.0) == 0
    assert bucket.left(1_000.0) == 100  # never more than the burst


def test_as_much_as_is_there() -> None:
    bucket = Bucket(WorkRate(1, 10), 0.0)
    assert bucket.take(7, 0.0) == 7
    assert bucket.take(7, 0.0) == 3
    assert bucket.take(7, 0.0) == 0
    assert bucket.take(7, 2.0) == 2


@pytest.mark.parametrize(
    ("kind", "amount", "delay_s"),
    [
        ("messages", 100, 0.0),
        ("messages", 130, 3.0),
        ("requests", 7, 2.0),
        ("size_bytes", 12_000, 2.0),
        ("audio_s", 60.0, 0.0),
        ("audio_s", 70.0, 5.0),
        ("work_s", 1.5, 5.0),
    ],
)
def test_each_kind_has_its_rate(kind: str, amount: float, delay_s: float) -> None:
    budget = Time().budget()
    match kind:
        case "messages":
            for _ in range(int(amount)):
                budget.message(0)
        case "requests":
            budget.request(int(amount))
        case "size_bytes":
            budget.message(int(amount))
        case "audio_s":
            budget.heard(amount)
        case "work_s":
            budget.worked(amount)
    assert budget.settle() == pytest.approx(delay_s)


LARGE_BYTES = 20_000


def test_the_time_that_a_large_message_takes_is_counted() -> None:
    time = Time()
    patient = replace(SMALL, size_bytes=WorkRate(1e9, 1e9))
    budget = time.budget(patient)
    with budget.message(LARGE_BYTES):
        time.cpu_s += 0.001
    assert budget.settle() == 0
    with budget.message(LARGE_BYTES):
        time.cpu_s += 1.2
    assert budget.due
    assert budget.settle() == pytest.approx(2.01)
    assert not budget.due


def test_one_small_message_in_32_is_measured_and_counts_for_all() -> None:
    time = Time()
    drawn = iter([3, 0, 7, 5])
    budget = WorkBudget(
        SMALL, lambda: time.now_s, lambda: time.cpu_s, time.sleep, lambda _: next(drawn)
    )
    for _ in range(4):
        with budget.message(10):
            time.cpu_s += 0.05
    assert budget.due
    assert budget.settle() == pytest.approx(
        6.0
    )  # 32 x 0.05 s, of which 1.0 is free, at 0.1 a second


def test_work_between_messages_is_measured() -> None:
    """What a decoder made of an earlier message, whether that one was measured or not."""
    time = Time()
    budget = WorkBudget(SMALL, lambda: time.now_s, lambda: time.cpu_s, time.sleep, lambda _: 1)
    with budget.message(10):
        time.cpu_s += 5.0
    with budget:
        time.cpu_s += 1.1
    assert budget.settle() == pytest.approx(1.0)


def test_a_flood_gets_its_rate_and_no_more() -> None:
    """A client that sends as fast as it is read, for a minute: what it got is the burst and the rate."""
    time = Time()
    patient = Allowance(messages=WorkRate(10, 100), patience_s=1e9)
    budget = time.budget(patient)

    async def flood() -> int:
        taken = 0
        while time.now_s < 160.0:
            with budget.message(10):
                taken += 1
            if budget.due:
                await budget.wait()
        return taken

    assert run(flood()) == pytest.approx(100 + 60 * 10, abs=33)


def test_others_have_their_turn_though_nothing_is_owed() -> None:
    time = Time()
    budget = time.budget(Allowance())

    async def read() -> None:
        for _ in range(320):
            with budget.message(400):
                pass
            if budget.due:
                await budget.wait()

    run(read())
    assert time.slept == [0.0] * 10


def test_a_client_that_stays_over_its_budget_is_ended_with_the_reason() -> None:
    time = Time()
    budget = time.budget()

    async def flood() -> None:
        while True:
            with budget.message(0):
                pass
            if budget.due:
                await budget.wait()

    with pytest.raises(OverBudget, match="more than 10 messages a second"):
        run(flood())
    assert 130 <= time.now_s <= 150  # the burst, then the patience


def test_a_client_that_recovers_is_forgiven() -> None:
    time = Time()
    budget = time.budget()

    async def bursts() -> None:
        for _ in range(20):
            for _ in range(160):
                budget.message(0)
            await budget.wait()
            time.now_s += 15
            budget.message(0)
            await budget.wait()

    run(bursts())
    assert budget.waited_s > 0


def test_a_recording_sent_at_once_only_waits() -> None:
    """An hour of audio as fast as it is taken: never an error, never faster than its rate."""
    time = Time()
    budget = time.budget()

    async def send() -> None:
        for _ in range(3_600):
            budget.heard(1.0)
            if budget.due:
                await budget.wait()

    run(send())
    assert time.now_s - 100 == pytest.approx((3_600 - 60) / 2, abs=2)
