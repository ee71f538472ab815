"""espeak-ng, the program: a hundred languages, robotic, there when nothing else is. The last resort of a chain.

Runs the program (GPL-3, so never linked) once per clause and reads the WAV that it writes.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import wave
from collections.abc import Iterator

import numpy as np

from antiphon.errors import ModelError, RequestError
from antiphon.models.ports import ModelInfo, Pcm16, SpeechRequest, WeightSource
from antiphon.models.registry import register_model
from antiphon.models.tts.postprocess import active_rms, finish

_WORDS_PER_MINUTE = 170
_VOICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,39}")
_LIMIT_S = 20.0
_TARGET_RMS = 0.085
_INSTALL = "apt-get install espeak-ng (macOS: brew install espeak-ng)"


@register_model("tts", "espeak")
class Espeak:
    """The `TextToSpeech` port on the program `espeak-ng`. `voice`: as `espeak-ng --voices` names them."""

    def __init__(self, weights: WeightSource | None = None, *, voice: str = "en-us") -> None:
        del weights  # it brings its own
        self.info = ModelInfo("espeak", detail=voice)
        self.sample_rate_hz = 22_050
        self._voice = voice
        self._program = ""

    def load(self) -> None:
        """Find the program and its voices. Raises ModelError with how to install it."""
        found = shutil.which("espeak-ng")
        if found is None:
            raise ModelError(f"the program espeak-ng is not installed: {_INSTALL}")
        self._program = found
        listed = self._run("--voices").decode(errors="replace").splitlines()[1:]
        codes = tuple(sorted({line.split()[1] for line in listed if len(line.split()) > 3}))
        languages = tuple(sorted({code.partition("-")[0] for code in codes}))
        self.info = ModelInfo("espeak", detail=self._voice, languages=languages, voices=codes)

    def close(self) -> None:
        """Nothing is kept."""

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16]:
        """The whole text as one array of int16 [n]. Raises ModelError."""
        if not any(character.isalnum() for character in request.text):
            return
        voice = request.voice or request.language or self._voice
        if not _VOICE.fullmatch(voice):  # a path would make the program read that file
            raise RequestError(f"espeak-ng has no voice {voice[:40]!r}; see `espeak-ng --voices`")
        speed = round(_WORDS_PER_MINUTE * request.speed)
        said = self._run("--stdout", "-v", voice, "-s", str(speed), "--stdin", text=request.text)
        with wave.open(io.BytesIO(said)) as file:
            self.sample_rate_hz = file.getframerate()
            samples = np.frombuffer(file.readframes(len(said)), "<i2").astype(np.float32) / 32768.0
        if samples.size:
            gain = _TARGET_RMS / max(active_rms(samples), 1e-3)
            yield finish(samples, min(gain, 4.0), request.text, self.sample_rate_hz)

    def _run(self, *arguments: str, text: str = "") -> bytes:
        try:
            done = subprocess.run(
                [self._program, *arguments],
                input=text.encode(),
                capture_output=True,
                timeout=_LIMIT_S,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise ModelError(f"espeak-ng did not end within {_LIMIT_S:g} s") from None
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or str(error).encode()
            raise ModelError(f"espeak-ng failed: {said.decode(errors='replace').strip()}") from None
        return done.stdout
