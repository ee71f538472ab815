"""The embedded language model calls a function of ours, made from a Python function, and tells what it returned."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.call.support import call
from tests.support import OPTIONS, loaded, run

from antiphon.call.model_tasks import Agent
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.models.model_set import FallbackConfig, ModelSet
from antiphon.models.ports import Kind
from antiphon.models.store import WeightStore
from antiphon.server.tools.python_functions import tool_of

pytestmark = pytest.mark.weights

asked: list[tuple[str, int]] = []


def get_weather(city: str, days: int = 1) -> str:
    """Tells the weather forecast of a city.

    Args:
        city: Name of the city, for instance Oslo.
        days: How many days ahead, 1 to 7.
    """
    asked.append((city, days))
    return "22 degrees and sunny"


def test_the_embedded_model_calls_a_function_and_tells_its_result() -> None:
    async def main() -> None:
        chains = [FallbackConfig(Kind.LLM, ("llamacpp",), {})] + [
            FallbackConfig(kind, ("scripted",), {"scripted": OPTIONS.get(kind.value, {})})
            for kind in Kind
            if kind is not Kind.LLM
        ]
        with ThreadPoolExecutor(1) as threads:
            async with loaded(ModelSet(chains, WeightStore())) as models, call(models) as line:
                prompt = "You are a voice assistant. Answer in one short sentence."
                line.session.agent = Agent(prompt, temperature=0.0)
                line.session.offer([tool_of(get_weather, threads)])
                line.session.post(ev.UserText("What is the weather in Oslo?"))
                async with asyncio.timeout(50):  # a real model on a busy machine
                    while not any(  # noqa: ASYNC110 - nothing tells of it
                        a.heard for a in line.transport.all(act.ReplyEnded)
                    ):
                        await asyncio.sleep(0.01)
                assert asked == [("Oslo", 1)]
                assert "22" in line.transport.all(act.ReplyEnded)[-1].heard

    run(main())
