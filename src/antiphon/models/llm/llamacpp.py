"""Language models in GGUF files through llama.cpp, in this process.

One `xllamacpp` server (llama.cpp's own, with its slots, batching and chat templates) serves all
calls. Replies come through its in-process handler; the same server's loopback endpoint, closed by a
random key, renders templates and counts tokens, for the binding gives no other way to the template
inside a GGUF file.

This module does not know turns or speculation: only prompts, slots and streams.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from antiphon.errors import ModelError, RequestError
from antiphon.models.chat_format import ThoughtFilter, WrittenCall, as_wire, error_text
from antiphon.models.completion_stream import (
    CompletionReply,
    CompletionStream,
    read,
    read_judgement,
)
from antiphon.models.kv_slots import KvSlots
from antiphon.models.ports import LlmDelta, LlmRequest, Message, ModelInfo, WeightSource
from antiphon.models.prompt_window import USER_TEXT, PromptFrame, fit, frame
from antiphon.models.registry import register_model

_SAMPLING: Mapping[str, float] = {"top_k": 40, "top_p": 0.9, "min_p": 0.05, "repeat_penalty": 1.05}
_TEMPLATE_OPTIONS: Mapping[str, Any] = {"enable_thinking": False}

_CPU_BATCH_TOKENS = 32
"""Tokens of a prompt that are read at one go: nobody else's next word comes meanwhile, and no
cancellation. 32 are about 0.2 s on 2 cores; measured, 512 read a long prompt 8% faster.
"""
_GPU_BATCH_TOKENS = 512

_CLOSING_MARKS = " .?!,;:…。？！，"
"""Put there by speech to text, whether the speaker had finished or not."""

_LIKELY_TOKENS = 40
"""Looked at when words are judged; what is less likely than these does not count."""

_NO_WORDS = ("{", " {", '{"', "{\n", "```", "<tool_call>", "<tools>")
"""How a function call begins."""

_SMALL_PARAMETERS = 2_000_000_000
"""Smaller models call functions that nobody asked for."""

_MARGIN_TOKENS = 32
"""For what a template adds of its own."""


@register_model("llm", "llamacpp")
class LlamaCpp:
    """llama.cpp with a prompt cache per call.

    While a long prompt is being read, `generate` yields empty deltas, one per batch of tokens, so
    that whoever iterates can stop it.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "qwen2.5-coder-0.5b",
        slots: int = 4,
        context_tokens: int = 4096,
        threads: int = 0,
        threads_batch: int = 0,
        gpu_layers: int = -1,
        seed: int | None = None,
        sampling: Mapping[str, Any] | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        `model`: an entry of the catalogue, or the path of a GGUF file.
        `slots`: calls whose prompt caches are kept, and requests served at once.
        `context_tokens`: of each slot; the default model takes 12 kB of memory per token.
        `threads`: for writing a reply; 0: two, or half the cores where that is more, at most 4.
        `threads_batch`: for reading a prompt; 0: all cores, at most 4.
        `gpu_layers`: layers on the GPU, where the installed xllamacpp has one; -1: all.
        `sampling`: more fields of llama.cpp's completion request, e.g. `{"top_p": 0.8}`.
        `template_options`: variables for the chat template, e.g. `{"enable_thinking": true}`.
        """
        cores = physical_cores()
        self.parallel = max(1, slots)
        self.info = ModelInfo(name="llamacpp", detail=model)
        self._weights = weights
        self._model = model
        self._context_tokens = context_tokens
        self._threads = threads or min(cores, max(2, min(4, cores // 2)))
        self._threads_batch = threads_batch or min(4, cores)
        self._gpu_layers = gpu_layers
        self._sampling = {**_SAMPLING, **(sampling or {})}
        if seed is not None:
            self._sampling["seed"] = seed
        self._template_options = {**_TEMPLATE_OPTIONS, **(template_options or {})}
        self._server: Any = None
        self._endpoint: httpx.Client | None = None

    # --- life -------------------------------------------------------------------------------------

    def load(self) -> None:
        """Raises ModelError: no such file, not a GGUF file, not enough memory, library missing."""
        path = self._gguf()
        # libgomp reads it once, when it is loaded. Its threads spin for milliseconds by default
        # while they wait for the next layer, on cores that speech needs.
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
        try:
            import xllamacpp
        except ImportError as error:
            fix = (
                "install the system package libgomp1"
                if "libgomp" in str(error)
                else "run: pip install xllamacpp"
            )
            raise ModelError(f"llama.cpp cannot be loaded ({error}); {fix}") from error
        key = secrets.token_urlsafe(32)
        on_gpu = self._gpu_layers != 0 and _has_gpu(xllamacpp)
        try:
            self._server = xllamacpp.Server(self._params(xllamacpp, path, key, on_gpu))
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"llama.cpp cannot load {path.name}: the file is damaged or the memory too small; "
                "fetch it again, or lower context_tokens or slots"
            ) from error
        self._endpoint = httpx.Client(
            base_url=self._server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,  # a proxy has no business between us and ourselves
            timeout=60,
        )
        self._slots = KvSlots(self.parallel)
        self._streams: set[CompletionStream] = set()
        self._streams_lock = threading.Lock()
        # Twice: a stopped request may hold its thread for one more token.
        self._pool = ThreadPoolExecutor(2 * self.parallel, thread_name_prefix="llamacpp")
        self._frame = lru_cache(maxsize=4 * self.parallel)(self._render_frame)
        self._count = lru_cache(maxsize=4096)(self._count_tokens)
        props = self._ask("GET", "/props")
        self._slot_tokens = int(props["default_generation_settings"]["n_ctx"])
        where = "gpu" if on_gpu else f"cpu, {self._threads}+{self._threads_batch} threads"
        self.info = ModelInfo(
            name="llamacpp",
            detail=f"{path.stem}, {where}, {self.parallel} x {self._slot_tokens} tokens",
            calls_functions=self._parameters() >= _SMALL_PARAMETERS,
        )
        self._complete_one_token()

    def close(self) -> None:
        if self._server is None:
            return
        self._stop_streams(lambda _: True)
        self._pool.shutdown(wait=True)
        if self._endpoint is not None:
            self._endpoint.close()
        self._server = self._endpoint = None

    def _gguf(self) -> Path:
        if self._model.endswith(".gguf") or os.sep in self._model:
            path = Path(self._model).expanduser()
        else:
            files = self._weights.files(self._model)
            names = sorted(name for name in files if name.endswith(".gguf"))
            if not names:
                raise ModelError(f"{self._model!r} has no GGUF file; choose another llm model")
            path = files[names[0]]  # of a split model the first part names the rest
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}") from error
        if magic != b"GGUF":
            raise ModelError(f"{path} is not a GGUF file; fetch it again or name another")
        return path

    def _params(self, xllamacpp: Any, path: Path, key: str, on_gpu: bool) -> Any:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel = self.parallel
        # Not unified: each slot has its own part, so that one long call takes nothing from another.
        params.n_ctx = self._context_tokens * self.parallel
        params.kv_unified = False
        params.cpuparams.n_threads = self._threads
        params.cpuparams_batch.n_threads = self._threads_batch
        params.n_gpu_layers = self._gpu_layers
        params.n_batch = params.n_ubatch = _GPU_BATCH_TOKENS if on_gpu else _CPU_BATCH_TOKENS
        params.cache_ram_mib = 0  # else old prompts pile up, gigabytes of them
        params.cache_idle_slots = False
        params.fit_params = on_gpu
        params.warmup = False  # done by the first completion
        params.verbosity = 0
        params.api_keys = [key]
        params.n_threads_http = 2
        params.ui = False
        params.endpoint_slots = False
        return params

    def _parameters(self) -> int:
        """How large the model is."""
        listed = self._ask("GET", "/v1/models").get("data") or [{}]
        return int((listed[0].get("meta") or {}).get("n_params") or _SMALL_PARAMETERS)

    def _complete_one_token(self) -> None:
        message = Message("user", "Hello")
        for _ in self.generate(LlmRequest((message,), max_tokens=1)):
            pass
        self._slots.release("")

    # --- the port ---------------------------------------------------------------------------------

    def generate(self, request: LlmRequest) -> CompletionReply:
        steps = [lambda: self._begin(request)]
        if request.judge_words:
            steps.insert(0, lambda: self._begin_judgement(request))
        if request.tools:
            steps.append(lambda: self._begin_in_words(request))
        return CompletionReply(*steps)

    def warm(self, request: LlmRequest) -> None:
        """Blocking, until it is read. Does nothing when the last message is not the user's."""
        messages = self._fitted(request)
        found = self._frame_of(messages, _tools_json(request))
        if found is None:
            return
        body = {"prompt": found.unfinished(messages[-1].content), "n_predict": 0}
        for _ in self._start(request.call_id, self._server.handle_completions, body):
            pass

    def release(self, call_id: str) -> None:
        """Whatever still runs for the call is stopped."""
        self._stop_streams(lambda stream: stream.call_id == call_id)
        self._slots.release(call_id)

    # --- requests ---------------------------------------------------------------------------------

    def _begin(self, request: LlmRequest) -> tuple[CompletionStream, Iterator[LlmDelta]]:
        messages = self._fitted(request)
        if request.tools:
            return self._begin_with_tools(request, messages)
        found = self._frame_of(messages, "")
        if found is not None:
            prompt, tail = found.whole(messages[-1].content), found.tail
        else:
            prompt = tail = self._render(as_wire(messages), "")
        body = {
            "prompt": prompt,
            "n_predict": request.max_tokens,
            "temperature": request.temperature,
            "stop": _special_tokens(tail[-200:]),
            **self._sampling,
        }
        if request.response_schema is not None:
            body["json_schema"] = request.response_schema
        stream = self._start(request.call_id, self._server.handle_completions, body)
        return stream, read(stream, ThoughtFilter(tail.rstrip().endswith("<think>")))

    def _begin_judgement(self, request: LlmRequest) -> tuple[CompletionStream, Iterator[LlmDelta]]:
        """What would come next if the user went on? The reply's prompt begins with the same tokens,
        so all that this costs is one step.
        """
        messages = self._fitted(request)
        found = self._frame_of(messages, _tools_json(request))
        words = messages[-1].content.rstrip(_CLOSING_MARKS)
        if found is None or not words:
            return CompletionStream(request.call_id, lambda body, take: None, {}), iter(())
        body = {
            "prompt": found.unfinished(words),
            "n_predict": 1,
            "n_probs": _LIKELY_TOKENS,
            "temperature": 0.0,
        }
        stream = self._start(request.call_id, self._server.handle_completions, body)
        return stream, read_judgement(stream)

    def _begin_in_words(self, request: LlmRequest) -> tuple[CompletionStream, Iterator[LlmDelta]]:
        """A small model has made a function up: once more, from the same prompt, without brackets."""
        bias = [[text, False] for text in _NO_WORDS]
        return self._begin_with_tools(request, self._fitted(request), {"logit_bias": bias})

    def _begin_with_tools(
        self,
        request: LlmRequest,
        messages: tuple[Message, ...],
        more: Mapping[str, Any] | None = None,
    ) -> tuple[CompletionStream, Iterator[LlmDelta]]:
        """Through the chat handler, which knows how this model writes a tool call."""
        body = {
            "messages": as_wire(messages),
            **_tool_fields(request),
            "chat_template_kwargs": self._template_options,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            **self._sampling,
            **(more or {}),
        }
        written = WrittenCall(tool["function"]["name"] for tool in request.tools)
        stream = self._start(request.call_id, self._server.handle_chat_completions, body)
        return stream, read(stream, ThoughtFilter(), written)

    def _start(
        self, call_id: str, handle: Callable[..., None], body: dict[str, Any]
    ) -> CompletionStream:
        slot = self._slots.acquire(call_id)
        body |= {
            "id_slot": slot,
            "cache_prompt": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,
        }
        stream = CompletionStream(call_id, handle, body)
        with self._streams_lock:
            self._streams.add(stream)

        def work() -> None:
            try:
                stream.run()
            finally:
                self._slots.done(call_id, slot)
                with self._streams_lock:
                    self._streams.discard(stream)

        self._pool.submit(work)
        return stream

    def _stop_streams(self, chosen: Callable[[CompletionStream], bool]) -> None:
        with self._streams_lock:
            streams = [stream for stream in self._streams if chosen(stream)]
        for stream in streams:
            stream.stop()

    # --- prompts ----------------------------------------------------------------------------------

    def _fitted(self, request: LlmRequest) -> tuple[Message, ...]:
        if self._server is None:
            raise ModelError("the language model is not loaded")
        if not request.messages:
            raise RequestError("the language model was asked without a message", "messages")
        reply = min(request.max_tokens, self._slot_tokens // 4)
        tools = self._count(_tools_json(request)) if request.tools else 0
        budget = self._slot_tokens - reply - tools - _MARGIN_TOKENS
        return fit(request.messages, budget, self._count)

    def _frame_of(self, messages: tuple[Message, ...], tools: str) -> PromptFrame | None:
        return self._frame(messages[:-1], tools) if messages[-1].role == "user" else None

    def _render_frame(self, before: tuple[Message, ...], tools: str) -> PromptFrame | None:
        return frame(self._render(as_wire((*before, Message("user", USER_TEXT))), tools))

    def _render(self, messages: list[dict[str, Any]], tools: str) -> str:
        body: dict[str, Any] = {
            "messages": messages,
            "chat_template_kwargs": self._template_options,
        }
        if tools:
            body["tools"] = json.loads(tools)
        return str(self._ask("POST", "/apply-template", body)["prompt"])

    def _count_tokens(self, text: str) -> int:
        return len(self._ask("POST", "/tokenize", {"content": text})["tokens"])

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        assert self._endpoint is not None
        try:
            response = self._endpoint.request(method, path, json=body)
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ModelError(f"llama.cpp does not answer: {error}") from error
        if response.is_client_error:  # a template is a program, and may refuse a conversation
            raise RequestError(f"the language model cannot be asked this: {error_text(answer)}")
        if response.is_error:
            raise ModelError(f"llama.cpp: {error_text(answer)}")
        return answer


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once: two on one core only get in each
    other's way.
    """
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    siblings = Path("/sys/devices/system/cpu")
    cores = set()
    for cpu in usable:
        try:
            name = f"cpu{cpu}/topology/thread_siblings_list"
            cores.add((siblings / name).read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _has_gpu(xllamacpp: Any) -> bool:
    kinds = xllamacpp.ggml_backend_dev_type
    return any(
        device["type"] in (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
        for device in xllamacpp.get_device_info()
    )


def _special_tokens(tail: str) -> list[str]:
    """What a small model sometimes spells out instead of ending its turn, e.g. `<|im_end|>`."""
    found = re.findall(r"<[^<>\s]{2,32}>", tail)
    return sorted({token for token in found if "think" not in token})


def _tools_json(request: LlmRequest) -> str:
    return json.dumps(list(request.tools)) if request.tools else ""


def _tool_fields(request: LlmRequest) -> dict[str, Any]:
    """llama.cpp knows no named function: it gets that one only, and must call it."""
    choice, tools = request.tool_choice, list(request.tools)
    if isinstance(choice, Mapping):
        name = choice.get("function", choice).get("name")
        tools = [tool for tool in tools if tool["function"]["name"] == name]
        choice = "required"
    return {"tools": tools, **({} if choice is None else {"tool_choice": choice})}
