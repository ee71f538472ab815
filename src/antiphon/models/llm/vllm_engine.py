"""vLLM in this process: one engine whose scheduler batches the replies of all calls token by token.

Source of the interface: vllm-project/vllm (`AsyncLLM`, whose engine is a child process). Prompts are rendered here, so
that the prefix cache sees the same tokens again and a prompt may be read while the caller still speaks. Does not know
turns or speculation: only prompts and streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

from antiphon.errors import ModelError, RequestError
from antiphon.models.in_process_chat import ChatPrompts, ReplyDeltas
from antiphon.models.ports import LlmDelta, LlmRequest, ModelInfo, Usage, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.torch_device import missing

_SILENCE_S = 30.0
"""An engine that gives no token for so long is taken for dead."""
_SHUTDOWN_S = 10.0


@register_model("llm", "vllm-engine")
class VllmEngine:
    """The `LanguageModel` port on vLLM's `AsyncLLM`. Works on the event loop and only waits there.

    `model`: a hub name or a folder. `quantization`: `awq`, `gptq`, `fp8`...; empty: as the weights say.
    `gpu_memory_utilization`: share of the GPU's memory for weights and cache, less where speech models share it.
    `max_model_len`: longest prompt and reply together; 0: as the model says. `engine`: any other field of vLLM's
    `AsyncEngineArgs`, e.g. `tensor_parallel_size`.
    """

    parallel = 64
    """vLLM queues what is too much for it; this only bounds what waits there."""

    def __init__(
        self,
        weights: WeightSource | None = None,
        *,
        model: str = "Qwen/Qwen2.5-7B-Instruct-AWQ",
        quantization: str = "",
        dtype: str = "auto",
        gpu_memory_utilization: float = 0.5,
        max_model_len: int = 8192,
        prefix_caching: bool = True,
        trust_remote_code: bool = False,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        del weights  # the library has a store of its own
        self.info = ModelInfo("vllm-engine", detail=model)
        self._name = model
        self._arguments: dict[str, Any] = {
            "model": model,
            "dtype": dtype,
            "quantization": quantization or None,
            "gpu_memory_utilization": gpu_memory_utilization,
            "max_model_len": max_model_len or None,
            "enable_prefix_caching": prefix_caching,
            "trust_remote_code": trust_remote_code,
            "disable_log_stats": True,
            **(engine or {}),
        }
        self._prefix_caching = prefix_caching
        self._device = ""
        self._engine: Any = None
        self._prompts: ChatPrompts | None = None
        self._context_tokens = 0
        self._numbers = itertools.count(1)

    async def load(self) -> None:
        """Fetch the model and start the engine: minutes. Raises ModelError with what to install or set."""
        try:
            engine = await asyncio.to_thread(self._start)
        except ImportError as error:
            raise missing("vLLM", "vllm", error) from error
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"vLLM cannot serve {self._name!r}: {_said(error)}") from error
        self._engine = engine
        try:
            tokenizer = engine.get_tokenizer()
            tokenizer = await tokenizer if inspect.isawaitable(tokenizer) else tokenizer
            self._context_tokens = int(engine.vllm_config.model_config.max_model_len)
            self._prompts = ChatPrompts(tokenizer, self._name, self._context_tokens)
        except BaseException:
            await self.close()
            raise
        self.info = ModelInfo(
            "vllm-engine",
            detail=f"{self._name}, {self._device}, {self._context_tokens} tokens"
            + (", prefix cache" if self._prefix_caching else ""),
        )

    def _start(self) -> Any:
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        self._device = str(current_platform.device_type)
        if not self._device:
            raise ModelError(
                "vLLM finds no accelerator here: run it on a GPU machine (antiphon service llm, "
                "or a vLLM server and the back end vllm), or use llamacpp"
            )
        return AsyncLLM.from_engine_args(AsyncEngineArgs(**self._arguments))

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHUTDOWN_S):
                    await asyncio.to_thread(engine.shutdown)

    async def generate(self, request: LlmRequest) -> AsyncIterator[LlmDelta]:
        """Closing it aborts the request within the engine. Raises ModelError."""
        ids = self._ids(request)
        assert self._prompts is not None
        reply = ReplyDeltas(request, thinking=self._prompts.thinks(ids))
        room = max(1, min(request.max_tokens, self._context_tokens - len(ids)))
        finish, made, cached = "stop", 0, 0
        async with contextlib.aclosing(self._run(ids, request, room)) as outputs:
            async for output in outputs:
                cached = output.num_cached_tokens or cached
                piece = output.outputs[0]
                made += len(piece.token_ids)
                for delta in reply.feed(piece.text):
                    yield delta
                finish = "length" if piece.finish_reason == "length" else "stop"
                if reply.complete:
                    break
        for delta in reply.end(finish, Usage(len(ids), made, cached)):
            yield delta

    async def warm(self, request: LlmRequest) -> None:
        """Read all of the prompt that the user's further words will not change. Raises ModelError."""
        if not self._prefix_caching:
            return
        ids = self._ids(request)
        assert self._prompts is not None
        async with contextlib.aclosing(
            self._run(self._prompts.settled(request, ids), request, 1)
        ) as outputs:
            async for _ in outputs:
                pass

    async def release(self, call_id: str) -> None:
        """The prefix cache belongs to all calls: the engine drops what is longest unused."""

    def _ids(self, request: LlmRequest) -> list[int]:
        if self._engine is None or self._prompts is None:
            raise ModelError("the language model is not loaded")
        return self._prompts.ids(request)

    async def _run(
        self, ids: list[int], request: LlmRequest, max_tokens: int
    ) -> AsyncGenerator[Any, None]:
        """vLLM's outputs, each with what is new."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input

        stream = self._engine.generate(
            tokens_input(ids),
            SamplingParams(**_sampling(request, max_tokens)),
            f"{request.call_id}-{next(self._numbers)}",
        )
        try:
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    output = await anext(stream, None)
                if output is None:
                    return
                yield output
        except TimeoutError:
            raise ModelError(f"vLLM gave no token for {_SILENCE_S:g} s") from None
        except ValueError as error:  # vLLM's word for a request that it will not begin
            raise RequestError(
                f"the language model cannot be asked this: {_said(error)}"
            ) from error
        except Exception as error:
            raise ModelError(f"vLLM: {_said(error)}") from error
        finally:
            await stream.aclose()


def _sampling(request: LlmRequest, max_tokens: int) -> dict[str, Any]:
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    chosen: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": request.temperature,
        "output_kind": RequestOutputKind.DELTA,
    }
    if request.response_schema is not None:
        chosen["structured_outputs"] = StructuredOutputsParams(json=dict(request.response_schema))
    return chosen


def _said(error: BaseException) -> str:
    """vLLM wraps the reason; the innermost one is what happened."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__
