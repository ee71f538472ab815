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
from concurrent.futures import Future
from typing import Any, TypeVar

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.config import Settings, load
from antiphon.models.pool import ModelSet
from antiphon.models.ports import ModelStatus, WeightSource
from antiphon.models.store import WeightStore
from antiphon.server.calls import agent_of
from antiphon.server.loading import model_set
from antiphon.session.oneshot import Answer, answer

T = TypeVar("T")


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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="antiphon", daemon=True)
        self._thread.start()
        self._models: ModelSet | None = None
        try:
            self._models = self._submit(self._load(on_model)).result()
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

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def answer(self, audio: bytes) -> Answer:
        """A recording in any format PyAV reads -> the spoken answer as PCM. Raises AudioError, ModelError."""
        assert self._models is not None
        decoded = decode_file(audio, max_duration_s=self.settings.server.max_file_s)
        policy, agent = self.settings.conversation, agent_of(self.settings)
        return self._submit(answer(self._models, decoded.pcm, policy, agent)).result()

    def close(self) -> None:
        """Free the models and end the thread. May be called twice."""
        if not self._thread.is_alive():
            return
        if self._models is not None:
            self._submit(self._models.close()).result(timeout=30)
            self._models = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

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
