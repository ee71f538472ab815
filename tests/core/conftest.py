"""Every simulated call of these tests is also held against the rules, and must replay to the same actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from antiphon.core.policy import Policy
from antiphon.observe import call_trace
from antiphon.testing.rules import check_trace
from antiphon.testing.virtual_call import World

Call = Callable[..., World]


@pytest.fixture
def call() -> Iterator[Call]:
    """`call(**policy)` -> a World without a greeting and without reading ahead, to be given a script and run."""
    worlds: list[World] = []

    def make(**policy: Any) -> World:
        worlds.append(World(Policy(**{"greeting": "", "warm_prompt": False, **policy})))
        return worlds[-1]

    yield make
    for world in worlds:
        check_trace(world.lines)
        assert call_trace.replay(world.lines) is None
