"""Rates, and the places that strangers have."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from antiphon.config.sections import ServerSettings
from antiphon.errors import ConfigError
from antiphon.server.traffic import Rate, ReadPace, Strangers


@dataclass(eq=False)
class Somebody:
    idle: bool = True
    dropped: list[str] = field(default_factory=list)
    strangers: Strangers | None = None

    def drop(self) -> None:
        self.dropped.append("dropped")
        assert self.strangers is not None
        self.strangers.leave(self)


def strangers(most: int = 3, per_address: int = 2, proxies: tuple[str, ...] = ()) -> Strangers:
    return Strangers(
        ServerSettings(max_strangers=most, max_strangers_per_address=per_address), proxies
    )


def enter(all_of_them: Strangers, host: str, idle: bool = True) -> tuple[Somebody, bool]:
    found = Somebody(idle, strangers=all_of_them)
    return found, all_of_them.enter(found, host, 0.0) is not None


def test_a_rate_is_kept_and_a_debt_is_waited_for() -> None:
    pace = ReadPace(Rate(10, 20))
    pace.spend(20, 100.0)
    assert pace.wait_s(100.0) == pytest.approx(0)
    pace.spend(30, 100.0)
    assert pace.wait_s(100.0) == pytest.approx(3)
    assert pace.wait_s(103.0) == pytest.approx(0)
    assert not pace.rested(103.0)
    assert pace.rested(105.0)
    pace.spend(20, 200.0)  # after a rest: the whole burst, and no more
    assert pace.wait_s(200.0) == pytest.approx(0)


def test_what_was_given_back_was_not_taken() -> None:
    pace = ReadPace(Rate(10, 20))
    pace.spend(50, 0.0)
    pace.give_back(50)
    pace.spend(20, 0.0)
    assert pace.wait_s(0.0) == pytest.approx(0)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_what_counts_as_one_address(first: str, second: str, shared: bool) -> None:
    known = strangers()
    one, another = Somebody(), Somebody()
    assert (known.enter(one, first, 0.0) is known.enter(another, second, 0.0)) is shared


def test_an_address_has_so_many_places() -> None:
    known = strangers(most=9)
    first, _ = enter(known, "192.0.2.1")
    second, _ = enter(known, "192.0.2.1", idle=False)
    third, taken = enter(known, "192.0.2.1", idle=False)
    assert taken
    assert first.dropped
    assert not second.dropped
    assert not enter(known, "192.0.2.1")[1]
    assert enter(known, "192.0.2.2")[1]
    known.leave(third)
    known.leave(third)
    assert enter(known, "192.0.2.1")[1]
    assert len(known) == 3


def test_all_of_them_have_so_many() -> None:
    known = strangers()
    busy = [enter(known, f"192.0.2.{n}", idle=False)[0] for n in range(2)]
    idle, _ = enter(known, "192.0.2.8")
    assert enter(known, "192.0.2.9", idle=False)[1]
    assert idle.dropped
    assert not any(somebody.dropped for somebody in busy)
    assert not enter(known, "192.0.2.10")[1]


def test_a_proxys_clients_are_no_address() -> None:
    known = strangers(most=9, proxies=("10.0.0.0/8", "::1"))
    for host in ("10.1.2.3", "::1"):
        assert all(enter(known, host, idle=False)[1] for _ in range(4))
    with pytest.raises(ConfigError, match="trusted_proxies"):
        strangers(proxies=("nowhere",))
