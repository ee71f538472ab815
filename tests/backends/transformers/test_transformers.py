"""Transformers back ends: loading, streaming, caching and cancelling on tiny random models of each architecture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

from tests.backends.transformers import tiny

from antiphon.errors import ModelError
from antiphon.models.llm.transformers_chat import TransformersChat
from antiphon.models.ports import LlmRequest, Message
from antiphon.models.store import WeightStore
from antiphon.models.stt.transformers_whisper import KyutaiTransformers, TransformersWhisper
from antiphon.testing.contracts import check_llm, check_stt

FAMILIES = ["llama", "phi3", "gemma3", "qwen2"]


def loaded(folder: Path, family: str = "llama", **options: object) -> TransformersChat:
    model = TransformersChat(WeightStore(), model=tiny.chat_model(folder, family), **options)  # type: ignore[arg-type]
    model.load()
    return model


def asked(*said: str, call: str = "c") -> LlmRequest:
    """A conversation of which the caller's words are given, without chance in the replies."""
    messages = [Message("system", "Be brief.")]
    for words in said[:-1]:
        messages += [Message("user", words), Message("assistant", "Yes.")]
    messages.append(Message("user", said[-1]))
    return LlmRequest(tuple(messages), call_id=call, max_tokens=12, temperature=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_contract(tmp_path: Path, family: str) -> None:
    check_llm(loaded(tmp_path, family))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_read_is_not_read_again_and_changes_nothing(tmp_path: Path, family: str) -> None:
    model = loaded(tmp_path, family)
    first = list(model.generate(asked("hello")))
    assert first[-1].usage is not None
    assert first[-1].usage.cached_tokens == 0
    warm = asked("hello", "tell me a story")
    model.warm(warm)
    second = list(model.generate(warm))
    assert second[-1].usage is not None
    assert second[-1].usage.cached_tokens > first[-1].usage.input_tokens
    fresh = list(model.generate(asked("hello", "tell me a story", call="another")))
    assert "".join(d.text for d in second) == "".join(d.text for d in fresh)


def test_a_stopped_reply_ends_at_its_next_token(tmp_path: Path) -> None:
    model = loaded(tmp_path)
    request = LlmRequest((Message("user", "hello"),), call_id="c", max_tokens=1_000)
    reply = model.generate(request)
    next(reply)
    reply.close()  # type: ignore[attr-defined]
    assert list(model.generate(asked("hello")))


def test_only_so_many_caches_are_kept(tmp_path: Path) -> None:
    model = loaded(tmp_path, caches=2)
    for call in ("a", "b", "c"):
        list(model.generate(asked("hello", call=call)))
    assert len(model._kept) == 2
    again = list(model.generate(asked("hello", call="a")))
    assert again[-1].usage is not None
    assert again[-1].usage.cached_tokens == 0


def test_a_long_history_is_cut_and_not_refused(tmp_path: Path) -> None:
    model = loaded(tmp_path, context_tokens=300)
    reply = list(model.generate(asked(*["tell me a long story"] * 40)))
    assert reply[-1].finish


def test_a_base_model_is_refused(tmp_path: Path) -> None:
    import transformers

    folder = tiny.chat_model(tmp_path, "llama")
    words = transformers.AutoTokenizer.from_pretrained(folder)
    words.chat_template = None
    words.save_pretrained(folder)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="no chat template"):
        TransformersChat(WeightStore(), model=folder).load()


def test_a_name_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot open"):
        TransformersChat(WeightStore(), model=str(tmp_path / "nothing")).load()


def test_whisper_contract(tmp_path: Path) -> None:
    words = WeightStore().files("whisper-base")["tokenizer.json"]
    model = TransformersWhisper(WeightStore(), model=tiny.whisper(tmp_path, words))
    model.load()
    check_stt(model)
    assert model.info.languages == ("en",)


def test_whisper_hears_several_callers_in_one_pass(tmp_path: Path) -> None:
    words = WeightStore().files("whisper-base")["tokenizer.json"]
    model = TransformersWhisper(WeightStore(), model=tiny.whisper(tmp_path, words))
    model.load()
    noise = np.random.default_rng(7).normal(0, 2_000, 48_000).astype(np.int16)
    audios = [noise[:16_000], np.zeros(16_000, np.int16), noise[16_000:32_000]]
    heard = model.transcribe_batch(audios, language="en")
    assert heard == [model.transcribe(audio, language="en") for audio in audios]
    assert heard[1].text == ""
    assert model.transcribe_batch([]) == []


def test_kyutai_contract(tmp_path: Path) -> None:
    model = KyutaiTransformers(WeightStore(), model=tiny.kyutai(tmp_path))
    model.load()
    check_stt(model)
    assert model.info.languages == ("en",)
    noise = np.random.default_rng(2).normal(0.0, 3_000.0, 3 * 16_000).astype(np.int16)
    assert model.transcribe(noise).text, "random weights say something"


def test_kyutai_hears_a_long_recording_in_pieces(tmp_path: Path) -> None:
    model = KyutaiTransformers(WeightStore(), model=tiny.kyutai(tmp_path))
    model.load()
    noise = np.random.default_rng(2).normal(0.0, 3_000.0, 40 * 16_000).astype(np.int16)
    assert model.transcribe(noise).text
