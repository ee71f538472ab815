"""Antiphon as a library: the models in this process, without a server.

    import antiphon
    answer = antiphon.process_audio(open("question.wav", "rb").read())

An `Engine` keeps the models and an event loop on a thread of its own; `process_audio` shares one per process.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable, Coroutine
from os import PathLike
from typing import IO, Any, TypeVar

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.call.file_turn import FileAnswer, answer_file
from antiphon.config import Settings, load
from antiphon.errors import ModelError
from antiphon.models.model_set import ModelSet
from antiphon.models.ports import ModelStatus, Pcm16, WeightSource
from antiphon.models.store import WeightStore
from antiphon.server.admission import agent_of
from antiphon.server.model_loading import model_set

T = TypeVar("T")
AudioSource = bytes | bytearray | memoryview | str | PathLike[str] | IO[bytes]


class Engine:
    """Loaded models and the loop they live on. Thread-safe; `close` it, or use it as a context manager."""

    def __init__(
        self,
        settings: Settings | None = None,
        weights: WeightSource | None = None,
        on_model: Callable[[ModelStatus], None] | None = None,
    ) -> None:
        """Blocks until the models are loaded (and fetched, the first time). Raises AntiphonError."""
        self.settings = settings or load()
        self._weights = weights or WeightStore()
        self._closing = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="antiphon", daemon=True)
        self._thread.start()
        self._models: ModelSet | None = None
        try:
            self._models = self._do(self._load(on_model))
        except BaseException:
            self.close()
            raise

    async def _load(self, on_model: Callable[[ModelStatus], None] | None) -> ModelSet:
        models = model_set(self.settings, self._weights)
        try:
            await models.load(on_model)
        except BaseException:
            await models.close()
            raise
        return models

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for work on the engine's loop; whoever stops waiting stops it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def answer(self, audio: AudioSource) -> FileAnswer:
        """A recording in any format PyAV reads (bytes, a path, an open file) -> the spoken answer as PCM.

        Raises AudioError, ModelError.
        """
        return self.answer_pcm(
            decode_file(audio, max_duration_s=self.settings.server.max_file_s).pcm
        )

    def answer_pcm(self, pcm: Pcm16) -> FileAnswer:
        """Like `answer`, for mono samples at 16 kHz."""
        models = self._models
        if models is None:
            raise ModelError("this engine is closed; make a new one")
        policy, agent = self.settings.conversation, agent_of(self.settings)
        return self._do(answer_file(models, pcm, policy, agent))

    def status(self) -> list[ModelStatus]:
        """All models of all chains, in order."""
        return [] if self._models is None else self._models.status()

    def close(self) -> None:
        """Free the models and end the thread. May be called twice; answers that are being made are given up."""
        with self._closing:
            if self._loop.is_closed():
                return
            models, self._models = self._models, None
            asyncio.run_coroutine_threadsafe(self._shut_down(models), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _shut_down(self, models: ModelSet | None) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if models is not None:
            await models.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_shared: Engine | None = None
_shared_lock = threading.Lock()


def process_audio(audio: bytes, *, response_format: str = "wav", bitrate: int = 64) -> bytes:
    """A spoken question in, a spoken answer out, both as the bytes of an audio file.

    The first call loads the models (and fetches them, the first time ever); later ones share them. `bitrate`: kbit/s,
    for the compressed formats. Raises AudioError for audio that cannot be used, ModelError when a model fails.
    """
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Engine()
            atexit.register(_shared.close)
    result = _shared.answer(audio)
    return encode_file(result.pcm, result.rate_hz, response_format, bitrate)
