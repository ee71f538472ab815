"""Language models of the Hugging Face hub through Transformers, in this process.

For owners who want exactly the weights of the hub (Phi-3, Llama 3.1, Gemma 3, Qwen) without a server beside; vLLM
serves many calls better. Each call keeps the keys and values of its conversation, so that only what is new is read.
Source of the interface: huggingface/transformers (`generate` with a streamer, stopping criteria and a dynamic cache).

Does not know turns or speculation: only prompts, caches and streams.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from antiphon.errors import ModelError
from antiphon.models.in_process_chat import ChatPrompts, ReplyDeltas, common
from antiphon.models.ports import LlmDelta, LlmRequest, ModelInfo, Usage, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.torch_device import device_and_dtype, missing

NAMES = {
    "phi3": "microsoft/Phi-3-mini-4k-instruct",
    "llama": "meta-llama/Llama-3.1-8B-Instruct",
    "gemma3": "google/gemma-3-1b-it",
}
"""Short names of the systems that Antiphon replaces."""
_TEXT_QUEUE = 4096
"""Pieces of text that wait for their reader: more than any reply has, so that the model never waits on it."""
_END_S = 10.0


@dataclass(slots=True)
class _Kept:
    """Keys and values of a conversation, and the tokens that they stand for."""

    cache: Any
    tokens: list[int] = field(default_factory=list)


@register_model("llm", "transformers")
class TransformersChat:
    """The `LanguageModel` port on `AutoModelForCausalLM`.

    `model`: a hub name, a short name of `NAMES`, or a folder. `caches`: calls whose keys and values are kept.
    `context_tokens`: longest prompt and reply together; 0: as the model says. `trust_remote_code`: let the model's
    repository run code of its own.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "phi3",
        device: str = "auto",
        dtype: str = "auto",
        caches: int = 4,
        context_tokens: int = 0,
        trust_remote_code: bool = False,
    ) -> None:
        del weights  # the library has a store of its own
        self._name = NAMES.get(model, model)
        self.info = ModelInfo("transformers", detail=self._name)
        self._device, self._dtype = device, dtype
        self._caches = max(1, caches)
        self._context_tokens = context_tokens
        self._remote_code = trust_remote_code
        self._model: Any = None
        self._tokenizer: Any = None
        self._prompts: ChatPrompts | None = None
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._turn = threading.Lock()
        """One generation at a time: PyTorch has no scheduler, and two would only slow each other down."""

    # --- life -------------------------------------------------------------------------------------

    def load(self) -> None:
        """Fetch and open the model. Raises ModelError with what to install or set."""
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise missing("Transformers", "transformers", error) from error
        device, dtype = device_and_dtype(self._device, self._dtype, model="transformers")
        trust = {"trust_remote_code": self._remote_code}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(self._name, **trust)
            model = AutoModelForCausalLM.from_pretrained(self._name, dtype=dtype, **trust)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"Transformers cannot open {self._name!r}: {reason}") from error
        limit = int(getattr(model.config, "max_position_embeddings", 0) or 4096)
        self._context_tokens = min(self._context_tokens or limit, limit)
        self._prompts = ChatPrompts(self._tokenizer, self._name, self._context_tokens)
        self._model = model.to(device).eval()
        torch.set_grad_enabled(False)
        self.info = ModelInfo(
            "transformers",
            detail=f"{self._name}, {device}, {str(dtype).removeprefix('torch.')}, "
            f"{self._caches} caches of up to {self._context_tokens} tokens",
        )

    def close(self) -> None:
        self._kept.clear()
        self._model = self._tokenizer = self._prompts = None

    def release(self, call_id: str) -> None:
        self._kept.pop(call_id, None)

    # --- the port ---------------------------------------------------------------------------------

    def warm(self, request: LlmRequest) -> None:
        """Read all of the prompt but its last few tokens, which may still change."""
        prompts = self._loaded()
        ids = prompts.settled(request, prompts.ids(request))
        with self._turn:
            kept = self._take(request.call_id)
            _crop(kept, common(kept.tokens, ids))
            new = ids[len(kept.tokens) :]
            if new:
                self._forward(kept, new)
            self._keep(request.call_id, kept)

    def generate(self, request: LlmRequest) -> Iterator[LlmDelta]:
        """Closing the iterator stops the model at its next token. Raises ModelError."""
        prompts = self._loaded()
        ids = prompts.ids(request)
        reply = ReplyDeltas(request, thinking=prompts.thinks(ids))
        with self._turn:
            kept = self._take(request.call_id)
            _crop(kept, min(common(kept.tokens, ids), len(ids) - 1))
            cached = len(kept.tokens)
            run = _Run(self._model, self._tokenizer, ids, kept, request)
            try:
                yield from _deltas(run, reply, request.max_tokens, Usage(len(ids), 0, cached))
            finally:
                run.stop()
                if run.clean:
                    kept.tokens = run.seen[: int(kept.cache.get_seq_length())]
                    self._keep(request.call_id, kept)

    # --- caches -----------------------------------------------------------------------------------

    def _loaded(self) -> ChatPrompts:
        if self._prompts is None:
            raise ModelError("the language model is not loaded")
        return self._prompts

    def _take(self, call_id: str) -> _Kept:
        from transformers import DynamicCache

        kept = self._kept.pop(call_id, None)
        return kept or _Kept(DynamicCache(config=self._model.config))

    def _keep(self, call_id: str, kept: _Kept) -> None:
        if not call_id:
            return
        self._kept[call_id] = kept
        while len(self._kept) > self._caches:
            self._kept.popitem(last=False)

    def _forward(self, kept: _Kept, new: list[int]) -> None:
        import torch

        with torch.inference_mode():
            ids = torch.tensor([new], device=self._model.device)
            self._model(input_ids=ids, past_key_values=kept.cache, use_cache=True)
        kept.tokens += new


class _Run:
    """One generation on a thread of its own; iterated for its text."""

    def __init__(
        self, model: Any, tokenizer: Any, ids: list[int], kept: _Kept, request: LlmRequest
    ) -> None:
        self.seen = list(ids)
        """Tokens of prompt and reply so far."""
        self.clean = False
        """It ended without an error: the cache may be kept."""
        self._stop = threading.Event()
        self._text: queue.Queue[str | BaseException | None] = queue.Queue(_TEXT_QUEUE)
        self._arguments = (model, tokenizer, kept, request)
        self._prompt_tokens = len(ids)
        self._thread = threading.Thread(target=self._work, name="transformers", daemon=True)
        self._thread.start()

    @property
    def written(self) -> int:
        return len(self.seen) - self._prompt_tokens

    def __iter__(self) -> Iterator[str]:
        while (piece := self._text.get()) is not None:
            if isinstance(piece, BaseException):
                raise ModelError(f"Transformers: {piece}") from piece
            yield piece

    def stop(self) -> None:
        """Returns when the thread has ended."""
        self._stop.set()
        self._thread.join(_END_S)
        self.clean = self.clean and not self._thread.is_alive()

    def _work(self) -> None:
        model, tokenizer, kept, request = self._arguments
        try:
            self._generate(model, tokenizer, kept, request)
            self.clean = True
            self._text.put(None)
        except BaseException as error:  # noqa: BLE001 - told to whoever reads
            self._text.put(error)

    def _generate(self, model: Any, tokenizer: Any, kept: _Kept, request: LlmRequest) -> None:
        import torch
        from transformers import StoppingCriteriaList

        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None}
        if request.temperature > 0:
            sampling = {"do_sample": True, "temperature": request.temperature, "top_p": 0.9}
        ids = torch.tensor([self.seen], device=model.device)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=kept.cache,
            streamer=_Streamer(tokenizer, self),
            stopping_criteria=StoppingCriteriaList([lambda *_: self._stop.is_set()]),
            max_new_tokens=request.max_tokens,
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
            **sampling,
        )

    def came(self, token: int, text: str) -> None:
        self.seen.append(token)
        if text:
            self.give(text)

    def give(self, text: str) -> None:
        with contextlib.suppress(queue.Full):
            self._text.put_nowait(text)


class _Streamer:
    """What `generate` is given: tokens -> text, as soon as no later token can change it."""

    def __init__(self, tokenizer: Any, run: _Run) -> None:
        self._tokenizer, self._run = tokenizer, run
        self._pending: list[int] = []
        self._prompt = True

    def put(self, value: Any) -> None:
        if self._prompt:
            self._prompt = False
            return
        for token in value.reshape(-1).tolist():
            self._pending.append(token)
            text = self._tokenizer.decode(self._pending, skip_special_tokens=True)
            if text.endswith("\N{REPLACEMENT CHARACTER}"):
                self._run.came(token, "")
                continue
            before = self._tokenizer.decode(self._pending[:-1], skip_special_tokens=True)
            whole = text[len(before) :] if text.startswith(before) else ""
            self._run.came(token, whole)
            if text.endswith((" ", "\n")):
                self._pending.clear()

    def end(self) -> None:
        """`generate` has finished; everything has been given already."""


def _deltas(run: _Run, reply: ReplyDeltas, max_tokens: int, usage: Usage) -> Iterator[LlmDelta]:
    for piece in run:
        yield from reply.feed(piece)
        if reply.complete:
            break
    finish = "length" if run.written >= max_tokens else "stop"
    yield from reply.end(finish, Usage(usage.input_tokens, run.written, usage.cached_tokens))


def _crop(kept: _Kept, length: int) -> None:
    """Forget what comes after the first `length` tokens; all of it, where a sliding window has lost what was before."""
    surplus = len(kept.tokens) - length
    if surplus <= 0:
        return
    try:
        kept.cache.crop(-surplus)
        del kept.tokens[length:]
    except (ValueError, RuntimeError, NotImplementedError):
        kept.cache.reset()
        kept.tokens.clear()
