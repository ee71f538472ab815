"""Names, options and plug-ins; and back ends that implement only the heart of their port."""

from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.errors import ConfigError, ModelError
from antiphon.models.duck_typing import adapt
from antiphon.models.ports import (
    Kind,
    LlmDelta,
    LlmRequest,
    Message,
    ModelInfo,
    SpeechRequest,
    Transcript,
)
from antiphon.models.registry import BUILT_IN, Registry, RegistryEntry, parse_kind, parse_spec
from antiphon.models.scripted import ScriptedLlm

AUDIO = np.arange(160, dtype=np.int16)


class NoWeights:
    def files(self, name: str) -> Mapping[str, Path]:
        raise AssertionError("no weights are needed here")


WEIGHTS = NoWeights()


# --- names ---------------------------------------------------------------------------------------


def test_kinds_by_all_their_names() -> None:
    assert parse_kind("asr") is Kind.STT
    assert parse_kind(" TTS ") is Kind.TTS
    with pytest.raises(ConfigError, match="did you mean 'llm'"):
        parse_kind("lm")


def test_specs() -> None:
    assert parse_spec("moonshine") == ("moonshine", None)
    assert parse_spec("ollama:qwen2.5:0.5b") == ("ollama", "qwen2.5:0.5b")
    for bad in ("", ":x", "x:"):
        with pytest.raises(ConfigError, match="NAME:WEIGHTS"):
            parse_spec(bad)


def test_an_unknown_name_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown stt model 'monshine'; did you mean 'moonshine'"):
        Registry().create(Kind.STT, "monshine", WEIGHTS)


def test_every_built_in_can_be_named_without_importing_anything_heavy() -> None:
    code = (
        "import sys, antiphon.models.registry as r; from antiphon.models.ports import Kind\n"
        "g = r.shared_registry(); [g.names(k) for k in Kind]\n"
        "print([m for m in ('onnxruntime', 'xllamacpp', 'httpx', 'openai') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
    assert {"silero"} < set(BUILT_IN[Kind.VAD])
    assert {"llamacpp", "openai", "ollama", "vllm", "groq"} < set(BUILT_IN[Kind.LLM])


def test_a_registered_class_is_found_under_either_name_of_its_kind() -> None:
    registry = Registry()

    @registry.register("asr", "my_model")
    class MyAsr:
        def transcribe(self, audio: Any) -> str:
            return "heard"

    assert isinstance(registry.create(Kind.STT, "my_model", WEIGHTS).backend, MyAsr)
    assert "my_model" in registry.names(Kind.STT)
    with pytest.raises(ConfigError, match="unknown llm model 'my_model'"):
        registry.find(Kind.LLM, "my_model")


def test_two_classes_cannot_hold_one_name_but_one_may_go_before_a_built_in() -> None:
    registry = Registry()
    registry.register("llm", "echo")(ScriptedLlm)
    registry.register("llm", "echo")(ScriptedLlm)
    with pytest.raises(ConfigError, match="registered twice"):
        registry.register("llm", "echo")(type("Other", (), {}))
    mine = type("Mine", (ScriptedLlm,), {})
    registry.register("llm", "llamacpp")(mine)
    assert type(registry.create(Kind.LLM, "llamacpp", WEIGHTS).backend) is mine
    with pytest.raises(ConfigError, match="colon"):
        registry.register("llm", "a:b")


# --- options -------------------------------------------------------------------------------------


class Recording:
    """Keeps what it was constructed with."""

    def __init__(self, weights: Any, *, model: str = "small", threads: int = 1) -> None:
        self.given = (weights, model, threads)

    def transcribe(self, audio: Any) -> str:
        return ""


def test_weights_in_the_spec_win_over_options_and_presets() -> None:
    registry = Registry()
    registry.register("stt", "r", model="preset", threads=3)(Recording)
    assert registry.create(Kind.STT, "r", WEIGHTS).backend.given == (WEIGHTS, "preset", 3)
    made = registry.create(Kind.STT, "r:large", WEIGHTS, {"model": "medium", "threads": 2})
    assert made.backend.given == (WEIGHTS, "large", 2)


def test_an_unknown_option_is_an_error_with_the_nearest_one() -> None:
    registry = Registry()
    registry.register("stt", "r")(Recording)
    with pytest.raises(ConfigError, match="no option 'thread'; did you mean 'threads'"):
        registry.create(Kind.STT, "r", WEIGHTS, {"thread": 2})
    with pytest.raises(ConfigError, match="no option 'delay'; did you mean 'delay_ms'"):
        registry.create(Kind.LLM, "scripted", WEIGHTS, {"delay": 2})


def test_constructors_of_simple_classes() -> None:
    class Bare:
        def transcribe(self, audio: Any) -> str:
            return ""

    class Named(Bare):
        def __init__(self, model: str = "x") -> None:
            self.model = model

    class Required(Bare):
        def __init__(self, path: str) -> None:
            self.path = path

    class Picky(Bare):
        def __init__(self, *, size: int = 1) -> None:
            raise ValueError("size must be odd")

    registry = Registry()
    for cls in (Bare, Named, Required, Picky):
        registry.register("stt", cls.__name__)(cls)
    registry.create(Kind.STT, "Bare", WEIGHTS)
    assert registry.create(Kind.STT, "Named:y", WEIGHTS).backend.model == "y"
    assert registry.create(Kind.STT, "Required", WEIGHTS, {"path": "p"}).backend.path == "p"
    with pytest.raises(ConfigError, match="refuses its options: size must be odd"):
        registry.create(Kind.STT, "Picky", WEIGHTS)


def test_a_back_end_whose_module_is_missing_is_a_model_error() -> None:
    table = {
        Kind.STT: {
            "gone": RegistryEntry("antiphon_no_such:Thing"),
            "odd": RegistryEntry("json:dumps"),
        }
    }
    registry = Registry(built_in=table)
    with pytest.raises(ModelError, match="cannot import antiphon_no_such:Thing"):
        registry.create(Kind.STT, "gone", WEIGHTS)
    with pytest.raises(ModelError, match="not a class"):
        registry.create(Kind.STT, "odd", WEIGHTS)


# --- plug-ins ------------------------------------------------------------------------------------


def _install(folder: Path, name: str, module: str) -> None:
    """A package with an entry point, as pip would leave it."""
    (folder / f"{name}.py").write_text(module)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[antiphon.test_models]\n{name} = {name}\n")


def test_a_plug_in_is_loaded_when_an_unknown_name_is_looked_up_and_a_broken_one_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = (
        "from tests_antiphon_plugin_home import registry\n"
        "@registry.register('tts', 'foreign')\n"
        "class Foreign:\n"
        "    def synthesize(self, text): return []\n"
    )
    _install(tmp_path, "antiphon_test_good", plugin)
    _install(tmp_path, "antiphon_test_broken", "raise RuntimeError('half installed')\n")
    registry = Registry(entry_point_group="antiphon.test_models")
    home: Any = type(sys)("tests_antiphon_plugin_home")
    home.registry = registry
    monkeypatch.setitem(sys.modules, home.__name__, home)
    monkeypatch.syspath_prepend(str(tmp_path))

    registry.create(Kind.TTS, "scripted", WEIGHTS)
    assert "antiphon_test_good" not in sys.modules
    with caplog.at_level(logging.WARNING):
        assert registry.create(Kind.TTS, "foreign", WEIGHTS).name == "foreign"
    assert "antiphon_test_broken" in caplog.text
    assert "half installed" in caplog.text
    monkeypatch.delitem(sys.modules, "antiphon_test_good")


# --- simple back ends ----------------------------------------------------------------------------


def _stt(function: Any) -> Any:
    return adapt(Kind.STT, "s", type("S", (), {"transcribe": staticmethod(function)})())


def _llm(function: Any) -> Any:
    return adapt(Kind.LLM, "s", type("S", (), {"generate": staticmethod(function)})())


def _tts(function: Any, **attributes: Any) -> Any:
    return adapt(
        Kind.TTS, "s", type("S", (), {"synthesize": staticmethod(function), **attributes})()
    )


@pytest.mark.parametrize(
    "returned", ["hi ", Transcript("hi"), ("hi", 0.25), (Transcript("hi"), 0.25)]
)
def test_transcribe_may_return_a_text_or_a_pair(returned: Any) -> None:
    assert _stt(lambda audio: returned).transcribe(AUDIO, language="en", partial=True).text == "hi"


def test_transcribe_gets_the_keywords_that_it_names_and_a_wav_file_if_it_wants_bytes() -> None:
    heard: list[Any] = []
    _stt(lambda audio, language=None: heard.append(language)).transcribe(AUDIO, language="de")
    _stt(lambda audio, **rest: heard.append(rest)).transcribe(AUDIO, partial=True)
    assert heard == ["de", {"language": None, "partial": True}]

    def recipe(audio_bytes: bytes) -> tuple[str, float]:
        with wave.open(io.BytesIO(audio_bytes)) as file:
            return f"{file.getframerate()} {file.getnframes()}", 0.1

    assert _stt(recipe).transcribe(AUDIO).text == "16000 160"
    assert _stt(lambda audio: None).transcribe(AUDIO) == Transcript("")
    with pytest.raises(ModelError, match="must return a text, not list"):
        _stt(lambda audio: ["hi"]).transcribe(AUDIO)


REQUEST = LlmRequest((Message("system", "be kind"), Message("user", "hi"), Message("user", "you")))


def test_generate_may_return_or_yield_texts_or_deltas() -> None:
    def words(request: LlmRequest) -> Iterator[str]:
        yield from ("a ", "b")

    whole = [LlmDelta("a"), LlmDelta(finish="stop")]
    assert list(_llm(words).generate(REQUEST)) == [
        LlmDelta("a "),
        LlmDelta("b"),
        LlmDelta(finish="stop"),
    ]
    assert list(_llm(lambda request: "a").generate(REQUEST)) == whole
    assert list(_llm(lambda request: ("a", 1.5)).generate(REQUEST)) == whole
    assert list(_llm(lambda request: iter(whole)).generate(REQUEST)) == whole
    assert list(_llm(lambda request: [LlmDelta("a")]).generate(REQUEST)) == whole


def test_generate_gets_a_text_messages_or_the_request_as_it_likes() -> None:
    def annotated(x: str) -> str:
        return x

    assert next(_llm(annotated).generate(REQUEST)).text == "you"
    assert next(_llm(lambda prompt: prompt).generate(REQUEST)).text == "you"
    assert next(_llm(lambda messages: messages[0]["content"]).generate(REQUEST)).text == "be kind"
    assert next(_llm(lambda request: request.messages[1].content).generate(REQUEST)).text == "hi"


def test_closing_a_reply_closes_the_generator_of_the_back_end() -> None:
    closed: list[bool] = []

    def endless(request: LlmRequest) -> Iterator[str]:
        try:
            while True:
                yield "more"
        finally:
            closed.append(True)

    reply = _llm(endless).generate(REQUEST)
    next(reply)
    reply.close()
    assert closed == [True]


def test_synthesize_may_give_audio_in_many_forms() -> None:
    floats = np.array([0.0, 0.5, -1.0, 2.0], np.float32)
    ints = [0, 16384, -32767, 32767]
    forms: list[Any] = [
        floats,
        [floats],
        (floats, 22_050),
        (floats[None, :], 0.2),
        [0.0, 0.5, -1.0, 2.0],
    ]
    for form in forms:
        (audio,) = _tts(lambda text, form=form: form).synthesize(SpeechRequest("hi"))
        assert audio.dtype == np.int16
        assert audio.tolist() == ints
    assert list(_tts(lambda text: None).synthesize(SpeechRequest("hi"))) == []
    with pytest.raises(ModelError, match="mono"):
        list(_tts(lambda text: np.zeros((2, 10), np.float32)).synthesize(SpeechRequest("hi")))


def test_the_rate_is_what_the_back_end_says_or_what_came_with_the_audio() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(AUDIO.tobytes())
    speech = SpeechRequest("hi")
    for returned, rate_hz in (
        ((AUDIO, 22_050), 22_050),
        (buffer.getvalue(), 8_000),
        (AUDIO, 24_000),
    ):
        model = _tts(lambda text, returned=returned: returned)
        (audio,) = model.synthesize(speech)
        assert audio.tolist() == AUDIO.tolist()
        assert model.sample_rate_hz == rate_hz
    assert _tts(lambda text: AUDIO, sample_rate=16_000).sample_rate_hz == 16_000


def test_synthesize_gets_the_request_or_its_text_with_the_keywords_that_it_names() -> None:
    said: list[Any] = []
    speech = SpeechRequest("hi", voice="joe", speed=1.5)
    list(_tts(lambda text, voice: said.append((text, voice))).synthesize(speech))
    list(_tts(lambda request: said.append(request)).synthesize(speech))
    assert said == [("hi", "joe"), speech]


def test_what_is_left_out_gets_a_default() -> None:
    model = _llm(lambda request: "a")
    assert model.load() is None
    assert model.close() is None
    assert model.warm(REQUEST) is None
    assert model.release("call") is None
    assert model.info == ModelInfo("s", detail="S")
    named = adapt(
        Kind.STT, "w", type("W", (), {"transcribe": str, "model_name": "Whisper (Base)"})()
    )
    assert named.info.detail == "Whisper (Base)"


def test_a_class_without_its_main_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"class object has no method synthesize\(\)"):
        adapt(Kind.TTS, "s", object())


def test_asynchronous_back_ends_are_told_by_their_definition() -> None:
    async def hears(audio: Any) -> str:
        return "hi"

    async def says(request: LlmRequest) -> AsyncIterator[str]:
        yield "a"

    async def says_at_once(request: LlmRequest) -> str:
        return "a"

    def annotated(request: LlmRequest) -> AsyncIterator[str]:
        return says(request)

    async def collect(model: Any) -> list[LlmDelta]:
        return [delta async for delta in model.generate(REQUEST)]

    assert asyncio.run(_stt(hears).transcribe(AUDIO)) == Transcript("hi")
    for function in (says, says_at_once, annotated):
        assert _llm(function).is_async
        assert asyncio.run(collect(_llm(function))) == [LlmDelta("a"), LlmDelta(finish="stop")]
    with pytest.raises(ModelError, match="async def"):
        _stt(lambda audio: hears(audio)).transcribe(AUDIO)
