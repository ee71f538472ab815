"""Moonshine: English speech to text, small enough for a spoken turn on one CPU thread.

Source of the model's interface: moonshine-ai/moonshine (merged decoder as exported by Hugging Face
Optimum). Does not know turns, partial policies or other calls: it hears an array of samples and
gives text.

Source of the file format: moonshine-ai/moonshine, `tokenizer.bin`: for each id in order a length
(one byte below 128, else two: low seven bits, then the rest) and that many bytes. `▁` stands for a
space. Does not know the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from antiphon.errors import ModelError
from antiphon.models.onnx import open_session, run, weight_file
from antiphon.models.ports import STT_RATE_HZ, ModelInfo, Pcm16, Transcript, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.stt.silence import is_silent, split_at_quiet

_TAIL_SAMPLES = STT_RATE_HZ // 2
"""Zeros at the end: without them the last word is often lost."""
_NOISE_TEXT = "You"
"""All that the model writes for noise, tones and clicks. A spoken "you" came out with punctuation."""
_TOKENS_PER_S = 6.5
_TOKENS_SPARE = 10
_LOOP_TOKENS = 16
_LOOP_TIMES = 4


@register_model("stt", "moonshine")
class Moonshine:
    """The `SpeechToText` port on Moonshine's encoder and merged decoder."""

    def __init__(
        self, weights: WeightSource, *, model: str = "moonshine-tiny-en", threads: int = 1
    ) -> None:
        self.info = ModelInfo(
            "moonshine",
            detail=f"{model}, cpu, {threads} thread(s)",
            languages=("en",),
            partials=True,
        )
        self._weights = weights
        self._model = model
        self._threads = threads
        self._encoder: Any = None
        self._decoder: Any = None
        self._vocabulary = Vocabulary([])
        self._first_inputs: dict[str, npt.NDArray[Any]] = {}

    def load(self) -> None:
        """Open encoder, decoder and vocabulary and transcribe a second of noise. Raises ModelError."""
        files = self._weights.files(self._model)
        entry = self._model
        self._vocabulary = Vocabulary.read(weight_file(files, "tokenizer.bin", entry))
        self._encoder = open_session(
            weight_file(files, "encoder_model.ort", entry), threads=self._threads
        )
        self._decoder = open_session(
            weight_file(files, "decoder_model_merged.ort", entry), threads=self._threads
        )
        self._first_inputs = _empty_cache(self._decoder)
        noise = np.random.default_rng(0).normal(0.0, 1000.0, STT_RATE_HZ)
        self.transcribe(noise.astype(np.int16))

    def close(self) -> None:
        self._encoder = self._decoder = None

    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript:
        """int16 samples [n] at 16 kHz, any n -> text; silence -> empty text.

        More than 16 s is cut at quiet places and the texts are joined. `language` is ignored: it
        hears English.
        """
        texts = (self._piece(piece) for piece in split_at_quiet(audio.reshape(-1)))
        return Transcript(" ".join(text for text in texts if text))

    def _piece(self, audio: Pcm16) -> str:
        if is_silent(audio):
            return ""
        samples = np.zeros((1, audio.size + _TAIL_SAMPLES), np.float32)
        samples[0, : audio.size] = audio
        samples *= np.float32(1.0 / 32768.0)
        budget = int(audio.size / STT_RATE_HZ * _TOKENS_PER_S) + _TOKENS_SPARE
        text = self._vocabulary.text(self._decode(samples, budget))
        return "" if text == _NOISE_TEXT else text

    def _decode(self, samples: npt.NDArray[np.float32], budget: int) -> list[int]:
        """Greedy decoding, at most `budget` tokens, stopped at the end token or in a loop."""
        mask = np.ones(samples.shape, np.int64)
        (hidden,) = run(
            "Moonshine", self._encoder, {"input_values": samples, "attention_mask": mask}
        )
        inputs = dict(self._first_inputs)
        inputs["encoder_hidden_states"] = hidden
        inputs["encoder_attention_mask"] = mask
        tokens: list[int] = []
        token = START
        while len(tokens) < budget:
            inputs["input_ids"] = np.array([[token]], np.int64)
            token = self._step(inputs, first=not tokens)
            if token == END:
                break
            tokens.append(token)
            start = loop_start(tokens)
            if start is not None:
                return tokens[:start]
        return tokens

    def _step(self, inputs: dict[str, Any], *, first: bool) -> int:
        """One run of the decoder; puts the new keys and values into `inputs`.

        Those of the encoder do not change after the first run and are not asked for again.
        """
        names = [name for name in self._first_inputs if first or ".decoder." in name]
        wanted = ["logits", *(name.replace("past_key_values", "present") for name in names)]
        inputs["use_cache_branch"] = np.array([not first])
        logits, *kept = run("Moonshine", self._decoder, inputs, wanted)
        inputs.update(zip(names, kept, strict=True))
        return int(logits[0, -1].argmax())


def _empty_cache(decoder: Any) -> dict[str, npt.NDArray[Any]]:
    """A decoder's keys and values before the first token: [1, heads, 0, size] each."""
    empty: dict[str, npt.NDArray[Any]] = {}
    for value in decoder.get_inputs():
        if value.name.startswith("past_key_values."):
            empty[value.name] = np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
    if not empty:
        raise ModelError("the decoder is not a merged Moonshine decoder: it has no key cache")
    return empty


def loop_start(tokens: list[int]) -> int | None:
    """Where the second copy of a run of repeats begins, if the tokens end in one; else None.

    A loop is 4 copies or more of the same tokens that together make 16 tokens or more: people say
    "no, no, no" too.
    """
    for size in range(1, len(tokens) // _LOOP_TIMES + 1):
        times = max(_LOOP_TIMES, -(-_LOOP_TOKENS // size))
        span = size * times
        if span <= len(tokens) and tokens[-span:-size] == tokens[-span + size :]:
            return len(tokens) - span + size
    return None


START, END = 1, 2
_FIRST_TEXT_ID = 3
_SPACE = "▁".encode()


class Vocabulary:
    """The pieces of text that token ids stand for."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Raises ModelError when the file is not a vocabulary."""
        try:
            pieces = _split(path.read_bytes())
        except (OSError, IndexError) as error:
            raise ModelError(
                f"{path.name} is not a Moonshine vocabulary; fetch it again: antiphon models pull"
            ) from error
        if pieces[START : END + 1] != [b"<s>", b"</s>"]:
            raise ModelError(
                f"{path.name} is not a Moonshine vocabulary; fetch it again: antiphon models pull"
            )
        return cls(pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    def text(self, ids: Iterable[int]) -> str:
        """Ids -> text without the space at either end. Control tokens (`<s>`, `<<ST_7>>`) say
        nothing.
        """
        known = (self._pieces[i] for i in ids if _FIRST_TEXT_ID <= i < len(self._pieces))
        joined = b"".join(piece for piece in known if not piece.startswith(b"<<ST_"))
        return joined.replace(_SPACE, b" ").decode("utf-8", errors="ignore").strip()


def _split(data: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        length = data[at]
        at += 1
        if length >= 128:
            length += (data[at] - 1) * 128
            at += 1
        if at + length > len(data):
            raise IndexError("the last piece is cut off")
        pieces.append(data[at : at + length])
        at += length
    return pieces
