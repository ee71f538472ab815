"""A spoken question in a file, a spoken answer in a file: without a server, called like a function.

    modal run deploy/modal/batch.py --audio-path input.wav --output output.wav
    modal deploy deploy/modal/batch.py

    answer = modal.Function.from_name("speech-to-speech", "process_audio").remote(audio_bytes)

`ASR_MODEL`, `LLM_MODEL` and `TTS_MODEL`, set where this is deployed, choose the models.
"""

from __future__ import annotations

from pathlib import Path

import antiphon_modal as shared
import modal

app = modal.App("speech-to-speech")

_CHOICES = ("ASR_MODEL", "LLM_MODEL", "TTS_MODEL", "ANTIPHON_MODELS__OPTIONS")


@app.function(
    image=shared.image("faster-whisper", "transformers", cuda=True),
    gpu=shared.variable("BATCH_GPU", "A10G"),
    cpu=4.0,
    memory=16_384,
    env=shared.passed_on(*_CHOICES),
    volumes=shared.VOLUMES,
    scaledown_window=5 * shared.MINUTE_S,
    timeout=10 * shared.MINUTE_S,
    startup_timeout=15 * shared.MINUTE_S,
    retries=modal.Retries(max_retries=1),
)
def process_audio(audio: bytes, response_format: str = "wav", bitrate: int = 64) -> bytes:
    """Any audio file's bytes -> the answer's, as wav, mp3, opus or flac; `bitrate`: kbit/s of a compressed one.

    The first call of a container loads the models. Raises AudioError, ModelError.
    """
    import antiphon

    answer = antiphon.process_audio(audio, response_format=response_format, bitrate=bitrate)
    shared.keep_weights()
    return answer


@app.local_entrypoint()
def main(audio_path: str, output: str = "output.wav", bitrate: int = 64) -> None:
    """The format of `output` is that of its extension."""
    fmt = Path(output).suffix.removeprefix(".").lower() or "wav"
    answer = process_audio.remote(Path(audio_path).read_bytes(), fmt, bitrate)
    Path(output).write_bytes(answer)
    print(f"wrote {output} ({len(answer)} bytes)")
