"""vLLM in this process: its real engine on a Llama of a few thousand random weights, on a GPU or vLLM's CPU build."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

platforms = pytest.importorskip("vllm.platforms")
if not platforms.current_platform.device_type:
    pytest.skip("vLLM finds no accelerator here", allow_module_level=True)

from tests.backends.transformers import tiny

from antiphon.errors import ModelError
from antiphon.models.llm.vllm_engine import VllmEngine
from antiphon.models.ports import LlmDelta, LlmRequest, Message
from antiphon.testing.contracts import check_llm

SMALL = {
    "gpu_memory_utilization": 0.3,
    "max_model_len": 512,
    "engine": {"enforce_eager": True, "max_num_seqs": 8, "kv_cache_memory_bytes": 64 << 20},
}


@pytest.fixture(scope="module")
def engine(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[asyncio.Runner, VllmEngine]]:
    folder = tiny.chat_model(tmp_path_factory.mktemp("llama"), "llama", head_dim=64)
    with asyncio.Runner() as runner:
        model = VllmEngine(model=folder, **SMALL)  # type: ignore[arg-type]
        runner.run(model.load())
        yield runner, model
        runner.run(model.close())


def asked(*said: str, max_tokens: int = 12, **options: Any) -> LlmRequest:
    """A conversation of which the caller's words are given, without chance in the replies."""
    messages = [Message("system", "Be brief and friendly, and help as well as you can. " * 4)]
    for words in said[:-1]:
        messages += [Message("user", words), Message("assistant", "Yes.")]
    messages.append(Message("user", said[-1]))
    return LlmRequest(
        tuple(messages), call_id="c", max_tokens=max_tokens, temperature=0.0, **options
    )


async def reply(model: VllmEngine, request: LlmRequest) -> list[LlmDelta]:
    return [delta async for delta in model.generate(request)]


def test_contract(engine: tuple[asyncio.Runner, VllmEngine]) -> None:
    runner, model = engine
    check_llm(model, runner=runner)
    assert "512 tokens" in model.info.detail


def test_what_was_read_is_not_read_again(engine: tuple[asyncio.Runner, VllmEngine]) -> None:
    runner, model = engine
    words = "tell me a long story " * 8
    runner.run(model.warm(asked(words)))
    last = runner.run(reply(model, asked(words)))[-1]
    assert last.usage is not None
    assert last.usage.cached_tokens > last.usage.input_tokens // 2


def test_replies_of_several_calls_run_together(engine: tuple[asyncio.Runner, VllmEngine]) -> None:
    runner, model = engine

    async def several() -> list[list[LlmDelta]]:
        asks = [asked(words) for words in ("hello", "how can I help", "count from one")]
        return list(await asyncio.gather(*(reply(model, ask) for ask in asks)))

    together = runner.run(several())
    assert all(deltas[-1].finish for deltas in together)
    alone = runner.run(reply(model, asked("hello")))
    assert "".join(d.text for d in alone) == "".join(d.text for d in together[0])


def test_a_stopped_reply_is_aborted_in_the_engine(
    engine: tuple[asyncio.Runner, VllmEngine],
) -> None:
    runner, model = engine

    async def stopped() -> int:
        stream = model.generate(asked("hello", max_tokens=300))
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return int(model._engine.get_num_unfinished_requests())

    assert runner.run(stopped()) == 0


def test_a_schema_is_followed(engine: tuple[asyncio.Runner, VllmEngine]) -> None:
    runner, model = engine
    schema = {"type": "boolean"}
    deltas = runner.run(reply(model, asked("hello", response_schema=schema)))
    assert "".join(delta.text for delta in deltas).strip() in ("true", "false")


def test_a_long_history_is_cut_and_not_refused(engine: tuple[asyncio.Runner, VllmEngine]) -> None:
    runner, model = engine
    deltas = runner.run(reply(model, asked(*["tell me a long story"] * 40)))
    assert deltas[-1].finish


def test_a_name_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot serve"):
        asyncio.run(VllmEngine(model=str(tmp_path / "nothing"), **SMALL).load())  # type: ignore[arg-type]
