"""Kyutai TTS 1.6B in this process, by the `moshi` package: English and French, audio while it is still being made.

Source of the interface: kyutai-labs/moshi (`moshi.models.tts`). The model's codec gives 80 ms of audio per step, and
each step is passed on as it is made. Does not know replies, playback or queues: it is given a few sentences and gives
their audio.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.errors import ModelError, RequestError, suggest
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.torch_device import device_and_dtype

INSTALL = "pip install 'antiphon[moshi]' && pip install --no-deps moshi"
"""Its own pins exclude the versions of huggingface-hub and NumPy that the rest of the server needs."""
VOICE = "expresso/ex03-ex01_happy_001_channel1_334s.wav"
_LICENCE = (
    "model CC BY 4.0; voices each their own: those of expresso and ears not for commercial use"
)
_WARM_UP = "Good morning."
_CLICK_FRAMES = 2
"""The codec's first frames after its start hold a click."""
_QUEUE_FRAMES = 64
_END_S = 10.0
_SLOWER = 2.0
"""Bonus of a pause per halving of the speed: the model has no other way to speak slower or faster."""


@register_model("tts", "moshi")
class MoshiTts:
    """The `TextToSpeech` port on Kyutai's delayed-streams model.

    `model`: a hub name, or a folder with `config.json` and the files that it names. `voices`: names in
    `kyutai/tts-voices`, or files; the first one speaks when a request names none. `codebooks`: 8 to 32, more sound
    better and take longer. Speed is a wish that the model follows roughly.
    """

    def __init__(
        self,
        weights: WeightSource,
        *,
        model: str = "kyutai/tts-1.6b-en_fr",
        voices: tuple[str, ...] | list[str] = (VOICE,),
        device: str = "auto",
        dtype: str = "auto",
        codebooks: int = 24,
    ) -> None:
        del weights  # the library has a store of its own
        self.info = ModelInfo("moshi", detail=model, licence=_LICENCE)
        self.sample_rate_hz = 24_000
        self._name, self._wanted = model, tuple(voices)
        self._device, self._dtype, self._codebooks = device, dtype, codebooks
        self._model: Any = None
        self._voices: dict[str, tuple[list[Any], list[Any] | None]] = {}
        self._turn = threading.Lock()
        """One utterance at a time: codec and model keep their state within themselves."""

    def load(self) -> None:
        """Fetch and open the model, speak two words. Raises ModelError with what to install or set."""
        try:
            from moshi.models.loaders import CheckpointInfo
            from moshi.models.tts import TTSModel
        except ImportError as error:
            raise ModelError(f"moshi cannot be imported ({error}); {INSTALL}") from error
        if not self._wanted:
            raise ModelError("Kyutai TTS needs a voice: set the option voices")
        device, dtype = device_and_dtype(self._device, self._dtype, model="moshi")
        try:
            checkpoint = _checkpoint(CheckpointInfo, self._name)
            model = TTSModel.from_checkpoint_info(
                checkpoint, device=device, dtype=dtype, n_q=self._codebooks
            )
            self._voices = {voice: _conditions(model, voice) for voice in self._wanted}
        except Exception as error:  # checkpoints of strangers fail in any way
            raise ModelError(f"moshi cannot open {self._name!r}: {_said(error)}") from error
        if model.valid_cfg_conditionings:
            model.cfg_coef = 1.0  # the model was taught its guidance: it is part of the voice
        self._model = model
        self.sample_rate_hz = int(model.mimi.sample_rate)
        shown = str(dtype).removeprefix("torch.")
        self.info = ModelInfo(
            "moshi",
            detail=f"{self._name}, {device}, {shown}, {self._codebooks} codebooks",
            languages=("en", "fr"),
            voices=self._wanted,
            licence=_LICENCE,
        )
        for _ in self.synthesize(SpeechRequest(_WARM_UP)):
            pass

    def close(self) -> None:
        self._model = None
        self._voices.clear()

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        """int16 [1920] at 24 kHz per step of the model. Closing it stops the model at its next step.

        Raises ModelError.
        """
        if self._model is None:
            raise ModelError("Kyutai TTS is not loaded; call load() first")
        if not any(character.isalnum() for character in request.text):
            return
        voice = request.voice or self._wanted[0]
        if voice not in self._voices:
            raise RequestError(
                f"{self._name} has no voice {voice!r}{suggest(voice, self._voices)}; add it to the option voices"
            )
        attributes, prefixes = self._voices[voice]
        with self._turn:
            run = _Run(
                lambda give: _speak(self._model, request, attributes, prefixes, give), self._name
            )
            try:
                yield from run
            finally:
                run.stop()


class _Stopped(Exception):
    """Nobody listens any more."""


class _Run:
    """One utterance on a thread of its own, for the model calls back with each frame; iterated for its audio."""

    def __init__(self, work: Callable[[Callable[[Pcm16], None]], None], name: str) -> None:
        self._work, self._name = work, name
        self._stop = threading.Event()
        self._frames: queue.Queue[Pcm16 | BaseException | None] = queue.Queue(_QUEUE_FRAMES)
        self._thread = threading.Thread(target=self._run, name="moshi", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Pcm16]:
        while (frame := self._frames.get()) is not None:
            if isinstance(frame, BaseException):
                raise ModelError(f"{self._name}: {_said(frame)}") from frame
            yield frame

    def stop(self) -> None:
        """Returns when the thread has ended."""
        self._stop.set()
        self._thread.join(_END_S)

    def _run(self) -> None:
        try:
            self._work(self._give)
            self._give(None)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - told to whoever reads
            with contextlib.suppress(_Stopped):
                self._give(error)

    def _give(self, frame: Pcm16 | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._frames.put(frame, timeout=0.1)
            except queue.Full:
                continue
        raise _Stopped


def _speak(
    model: Any,
    request: SpeechRequest,
    attributes: list[Any],
    prefixes: list[Any] | None,
    give: Callable[[Pcm16], None],
) -> None:
    """Run the model over `request`, giving the audio of each frame once its codec has it."""
    import torch

    skip = _CLICK_FRAMES + (prefixes[0].shape[-1] if prefixes else 0)
    skip += int(model.delay_steps)
    model.padding_bonus = float(-_SLOWER * np.log2(min(max(request.speed, 0.5), 2.0)))
    seen = 0

    def heard(frame: Any) -> None:
        nonlocal seen
        seen += 1
        if seen <= int(model.delay_steps):
            return
        pcm = model.mimi.decode(frame[:, 1:, :]).clamp(-1.0, 1.0)
        if seen > skip:
            samples = pcm[0, 0].float().cpu().numpy()
            give(np.rint(samples * 32767.0).astype(np.int16))

    distilled = bool(model.valid_cfg_conditionings)
    entries = [model.prepare_script([request.text], padding_between=1)]
    with torch.no_grad(), model.mimi.streaming(1):
        model.generate(
            entries,
            attributes,
            prefixes=prefixes,
            on_frame=heard,
            cfg_is_no_text=not distilled,
            cfg_is_no_prefix=not distilled,
        )


def _conditions(model: Any, voice: str) -> tuple[list[Any], list[Any] | None]:
    """What the model is given to sound like `voice`: an embedding, or for some models a clip to go on from."""
    path = Path(voice).expanduser()
    if not path.is_file():
        path = model.get_voice_path(voice)
    guidance = 2.0 if model.valid_cfg_conditionings else None
    if model.multi_speaker:
        return [model.make_condition_attributes([path], guidance)], None
    return [], [model.get_prefix(path)]


def _checkpoint(checkpoints: Any, name: str) -> Any:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return checkpoints.from_hf_repo(name)
    import json

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = {"moshi_weights": "moshi_name", "mimi_weights": "mimi_name"}
    named |= {"tokenizer": "tokenizer_name"}
    files = {argument: folder / config[key] for argument, key in named.items()}
    if "mimi_config_name" in config:
        files["mimi_config_path"] = folder / config["mimi_config_name"]
    return checkpoints.from_hf_repo(name, config_path=folder / "config.json", **files)


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
