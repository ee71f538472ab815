"""moshi's messages: what is encoded is decoded, and any bytes give a message or a peer's error."""

from __future__ import annotations

import contextlib

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import ProtocolError
from antiphon.protocols.moshi import codec

_numbers = st.floats(-1, 1, width=32)
_seconds = st.floats(0, 1e6, allow_nan=False)
MESSAGES = st.one_of(
    st.binary(max_size=50).map(codec.OggOpus),
    st.integers(-(2**31), 2**31).map(codec.Marker),
    st.builds(codec.Text, st.text(max_size=30), _seconds, _seconds),
    st.builds(
        codec.Voice,
        st.lists(_numbers, max_size=9).map(tuple),
        st.lists(st.integers(0, 9), max_size=3).map(tuple),
    ),
    st.just(codec.Eos()),
    st.just(codec.Ready()),
    st.builds(
        codec.Step,
        st.integers(0, 2**31),
        st.lists(_numbers, max_size=4).map(tuple),
        st.integers(0, 9),
    ),
    st.builds(codec.Word, st.text(max_size=9), _seconds),
    st.builds(codec.EndWord, _seconds),
    st.builds(codec.Error, st.text(max_size=30)),
)


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: codec.Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(st.lists(_numbers, max_size=300))
def test_audio(numbers: list[float]) -> None:
    samples = np.array(numbers, np.float32)
    frame = codec.encode(codec.Audio(samples))
    assert msgspec.msgpack.decode(frame) == {"type": "Audio", "pcm": samples.tolist()}
    found = codec.decode(frame)
    assert isinstance(found, codec.Audio)
    np.testing.assert_array_equal(found.pcm, samples)


@given(st.binary(max_size=200))
def test_any_bytes(frame: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        codec.decode(frame)


_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_KINDS = "Audio OggOpus Marker Text Voice Step Word EndWord Error Init Else".split()
_FIELDS = "pcm data id text start_s embeddings shape step_idx prs start_time stop_time".split()


@given(st.sampled_from(_KINDS), st.dictionaries(st.sampled_from(_FIELDS), _values, max_size=4))
def test_any_fields(kind: str, fields: dict[str, object]) -> None:
    with contextlib.suppress(ProtocolError):
        codec.decode(msgspec.msgpack.encode({"type": kind, **fields}))


def test_numbers_of_any_kind_and_double_precision() -> None:
    """TTS clients send float64 and whole numbers."""
    frame = msgspec.msgpack.encode({"type": "Voice", "embeddings": [1, 0.25], "shape": [2]})
    assert codec.decode(frame) == codec.Voice((1.0, 0.25), (2,))
    audio = codec.decode(msgspec.msgpack.encode({"type": "Audio", "pcm": [0, 1, 5.0, -7]}))
    assert isinstance(audio, codec.Audio)
    assert audio.pcm.tolist() == [0.0, 1.0, 1.0, -1.0]


def test_too_much_audio() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        codec.decode(codec.encode(codec.Audio(np.zeros(codec.MAX_SAMPLES + 1, np.float32))))


def test_what_means_nothing_to_us() -> None:
    assert codec.decode(msgspec.msgpack.encode({"type": "Init"})) == codec.Ignored("Init")
