"""Small audio for the way over a network: WAV or any other audio -> MP3 (or Opus, FLAC ...) and back to WAV.

Also offers the names under which the modular pipeline system had these functions.
"""

from __future__ import annotations

from antiphon.audio.containers import MAX_DURATION_S, decode_file
from antiphon.audio.encoding import encode_file
from antiphon.audio.framing import Pcm16, pcm_from_bytes
from antiphon.errors import AudioError


def compress(
    audio: bytes,
    bitrate: int = 64,
    fmt: str = "mp3",
    *,
    pcm_rate_hz: int | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> bytes:
    """Compress an audio file (WAV, or anything else that can be decoded) to mono `fmt` at `bitrate` kbit/s.

    `pcm_rate_hz`: `audio` is raw 16-bit little-endian mono at this rate instead. Raises AudioError for what is not
    audio, is too long, or cannot be written.
    """
    pcm: Pcm16
    if pcm_rate_hz is not None:
        pcm, rate_hz = pcm_from_bytes(audio), pcm_rate_hz
    else:
        decoded = decode_file(audio, rate_hz=None, max_duration_s=max_duration_s)
        pcm, rate_hz = decoded.pcm, decoded.rate_hz
    return encode_file(pcm, rate_hz, fmt, bitrate)


def decompress(audio: bytes, *, max_duration_s: float = MAX_DURATION_S) -> bytes:
    """Any audio file -> 16-bit mono WAV at the file's own rate. Raises AudioError as `decode_file` does."""
    decoded = decode_file(audio, rate_hz=None, max_duration_s=max_duration_s)
    return encode_file(decoded.pcm, decoded.rate_hz, "wav")


def compression_ratio(original: bytes | int, compressed: bytes | int) -> float:
    """Size of the original / size of the compressed: 4.0 means a quarter of the bytes.

    Takes the data or its length. The pipeline system printed its ratio as a percentage without saying of what;
    `f"{ratio:.1%}"` of this one still reads rightly: "400.0%", the original is four times as large. Raises
    AudioError when `compressed` is empty.
    """
    before = original if isinstance(original, int) else len(original)
    after = compressed if isinstance(compressed, int) else len(compressed)
    if after <= 0:
        raise AudioError("no compressed audio to compare with; compress it first")
    return before / after


compress_wav_to_mp3 = compress
decompress_mp3_to_wav = decompress
get_compression_ratio = compression_ratio
