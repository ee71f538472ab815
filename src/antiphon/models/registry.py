"""Finding a back end by kind and name, and constructing it.

A model is named by a user as `name` or `name:weights` (`faster-whisper:large-v3-turbo`). The name
is looked up among the classes registered with `@register_model`, then in the table of built-in back
ends, then in the packages that offer the entry point group `antiphon.models`. Nothing is imported
before it is asked for.

This module does not know how a model is loaded, shared or replaced by another.
"""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, TypeVar

from antiphon.errors import AntiphonError, ConfigError, ModelError, suggest
from antiphon.models.duck_typing import Adapted, adapt
from antiphon.models.ports import Kind, WeightSource

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "antiphon.models"

C = TypeVar("C", bound=type)


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """One known back end: where its class is, and the options that come with the name."""

    target: str | type
    """The class, or `module:Class`, imported when it is first constructed."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def resolve(self) -> type:
        """The class. Raises ModelError when its module cannot be imported."""
        if isinstance(self.target, type):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ModelError(f"cannot import {self.target}: {error}") from error
        if not isinstance(found, type):
            raise ModelError(f"{self.target} is not a class")
        return found


def _openai(base_url: str) -> RegistryEntry:
    return RegistryEntry(
        "antiphon.models.llm.openai_compatible:OpenAICompatible", {"base_url": base_url}
    )


BUILT_IN: Mapping[Kind, Mapping[str, RegistryEntry]] = {
    Kind.VAD: {
        "silero": RegistryEntry("antiphon.models.vad.silero:Silero"),
        "webrtc": RegistryEntry("antiphon.models.vad.webrtc:WebRtcVad"),
        "scripted": RegistryEntry("antiphon.models.scripted:ScriptedVad"),
    },
    Kind.TURN: {
        "smart-turn": RegistryEntry("antiphon.models.turn.smart_turn:SmartTurn"),
        "scripted": RegistryEntry("antiphon.models.scripted:ScriptedTurnDetector"),
    },
    Kind.STT: {
        "faster-whisper": RegistryEntry("antiphon.models.stt.faster_whisper:FasterWhisper"),
        "moonshine": RegistryEntry("antiphon.models.stt.moonshine:Moonshine"),
        "transformers-whisper": RegistryEntry(
            "antiphon.models.stt.transformers_whisper:TransformersWhisper"
        ),
        "kyutai-transformers": RegistryEntry(
            "antiphon.models.stt.transformers_whisper:KyutaiTransformers"
        ),
        "openai": RegistryEntry("antiphon.models.stt.openai_transcription:OpenAITranscription"),
        "groq": RegistryEntry(
            "antiphon.models.stt.openai_transcription:OpenAITranscription",
            {"base_url": "https://api.groq.com/openai/v1", "model": "whisper-large-v3-turbo"},
        ),
        "moshi-server": RegistryEntry("antiphon.models.stt.moshi_server_stt:MoshiServerStt"),
        "mlx-whisper": RegistryEntry("antiphon.models.stt.mlx_whisper:MlxWhisper"),
        "nemo": RegistryEntry("antiphon.models.stt.nemo:Nemo"),
        "ray": RegistryEntry("antiphon.models.remote.ray_serve:RayStt"),
        "scripted": RegistryEntry("antiphon.models.scripted:ScriptedStt"),
        "scripted-remote": RegistryEntry("antiphon.models.scripted:RemoteStt"),
    },
    Kind.LLM: {
        "llamacpp": RegistryEntry("antiphon.models.llm.llamacpp:LlamaCpp"),
        "openai": RegistryEntry("antiphon.models.llm.openai_compatible:OpenAICompatible"),
        "ollama": _openai("http://localhost:11434/v1"),
        "vllm": _openai("http://localhost:8000/v1"),
        "llama-server": _openai("http://localhost:8080/v1"),
        "groq": _openai("https://api.groq.com/openai/v1"),
        "transformers": RegistryEntry("antiphon.models.llm.transformers_chat:TransformersChat"),
        "vllm-engine": RegistryEntry("antiphon.models.llm.vllm_engine:VllmEngine"),
        "ray": RegistryEntry("antiphon.models.remote.ray_serve:RayLlm"),
        "scripted": RegistryEntry("antiphon.models.scripted:ScriptedLlm"),
        "scripted-remote": RegistryEntry("antiphon.models.scripted:RemoteLlm"),
    },
    Kind.TTS: {
        "kokoro": RegistryEntry("antiphon.models.tts.kokoro:Kokoro"),
        "piper": RegistryEntry("antiphon.models.tts.piper:Piper"),
        "openai": RegistryEntry("antiphon.models.tts.openai_speech:OpenAISpeech"),
        "edge-tts": RegistryEntry("antiphon.models.tts.edge:EdgeTts"),
        "espeak": RegistryEntry("antiphon.models.tts.espeak:Espeak"),
        "xtts": RegistryEntry("antiphon.models.tts.coqui:Xtts"),
        "coqui": RegistryEntry("antiphon.models.tts.coqui:Coqui"),
        "chatterbox": RegistryEntry("antiphon.models.tts.chatterbox:Chatterbox"),
        "moshi": RegistryEntry("antiphon.models.tts.moshi_tts:MoshiTts"),
        "xtts-server": RegistryEntry("antiphon.models.tts.xtts_server:XttsServer"),
        "moshi-server": RegistryEntry("antiphon.models.tts.moshi_server_tts:MoshiServerTts"),
        "ray": RegistryEntry("antiphon.models.remote.ray_serve:RayTts"),
        "scripted": RegistryEntry("antiphon.models.scripted:ScriptedTts"),
        "scripted-remote": RegistryEntry("antiphon.models.scripted:RemoteTts"),
    },
}


def parse_kind(kind: str) -> Kind:
    """`asr` means `stt`. Raises ConfigError."""
    name = kind.strip().lower()
    if name == "asr":
        return Kind.STT
    try:
        return Kind(name)
    except ValueError:
        known = [*(known.value for known in Kind), "asr"]
        raise ConfigError(f"unknown kind of model {kind!r}{suggest(name, known)}") from None


def parse_spec(spec: str) -> tuple[str, str | None]:
    """`name` or `name:weights` -> (name, weights or None). Only the first colon counts."""
    name, colon, weights = spec.strip().partition(":")
    if not name or (colon and not weights):
        raise ConfigError(f"{spec!r} names no model; write NAME or NAME:WEIGHTS")
    return name, weights or None


class Registry:
    """The back ends that this process knows. Most code uses the module's functions on the shared
    one.
    """

    def __init__(
        self,
        built_in: Mapping[Kind, Mapping[str, RegistryEntry]] = BUILT_IN,
        entry_point_group: str = ENTRY_POINT_GROUP,
    ) -> None:
        self._built_in = built_in
        self._group = entry_point_group
        self._registered: dict[Kind, dict[str, RegistryEntry]] = {kind: {} for kind in Kind}
        self._plugins_loaded = False

    def register(self, kind: str, name: str, **options: Any) -> Callable[[C], C]:
        """Class decorator: make the class known as `name`. `options` are its defaults under this
        name.

        A registered class goes before a built-in one of the same name. Raises ConfigError when
        another class holds the name already.
        """
        known_kind = parse_kind(kind)
        if parse_spec(name) != (name, None):
            raise ConfigError(
                f"a model's name must not contain a colon or spaces around it: {name!r}"
            )

        def decorate(cls: C) -> C:
            holder = self._registered[known_kind].get(name)
            if holder is not None and _qualified(holder.target) != _qualified(cls):
                raise ConfigError(
                    f"{known_kind} model {name!r} is registered twice: "
                    f"{_qualified(holder.target)} and {_qualified(cls)}"
                )
            self._registered[known_kind][name] = RegistryEntry(cls, options)
            return cls

        return decorate

    def find(self, kind: Kind, name: str) -> RegistryEntry:
        """Raises ConfigError with the nearest known name."""
        found = self._known(kind, name)
        if found is None:
            self._load_plugins()
            found = self._known(kind, name)
        if found is None:
            raise ConfigError(f"unknown {kind} model {name!r}{suggest(name, self.names(kind))}")
        return found

    def names(self, kind: Kind) -> tuple[str, ...]:
        """All names of a kind, sorted; loads the plug-ins."""
        self._load_plugins()
        return tuple(sorted({*self._registered[kind], *self._built_in.get(kind, {})}))

    def create(
        self,
        kind: Kind,
        spec: str,
        weights: WeightSource,
        options: Mapping[str, Any] | None = None,
    ) -> Adapted:
        """Construct the model that `spec` names, behind the adapter that gives it the whole port;
        not loaded.

        Raises ConfigError (unknown name or option) or ModelError (its module cannot be imported).
        """
        name, weights_name = parse_spec(spec)
        entry = self.find(kind, name)
        merged = {**entry.options, **(options or {})}
        if weights_name is not None:
            merged["model"] = weights_name
        cls = entry.resolve()
        return adapt(kind, name, _construct(kind, name, cls, weights, merged))

    def _known(self, kind: Kind, name: str) -> RegistryEntry | None:
        return self._registered[kind].get(name) or self._built_in.get(kind, {}).get(name)

    def _load_plugins(self) -> None:
        """Import what other packages offer. One that is broken is logged and left out."""
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in metadata.entry_points(group=self._group):
            try:
                point.load()
            except Exception as error:  # noqa: BLE001 - foreign code may raise anything
                log.warning("plug-in %s (%s) skipped: %s", point.name, point.value, error)


def _qualified(target: str | type) -> str:
    if isinstance(target, str):
        return target
    return f"{target.__module__}:{target.__qualname__}"


def _construct(
    kind: Kind, name: str, cls: type, weights: WeightSource, options: Mapping[str, Any]
) -> Any:
    parameters = _constructor_parameters(cls)
    _check_options(kind, name, parameters, options)
    try:
        if _wants_weights(parameters, options):
            return cls(weights, **options)
        return cls(**options)
    except AntiphonError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{kind} model {name!r} refuses its options: {error}") from error


def _constructor_parameters(cls: type) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(cls).parameters.values())
    except ValueError:  # built in C without a signature
        return []


def _wants_weights(parameters: list[inspect.Parameter], options: Mapping[str, Any]) -> bool:
    """A plug-in that brings its own weights need not take a WeightSource."""
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return True
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            return False
        if parameter.name.lstrip("_") == "weights":
            return True
        return parameter.default is parameter.empty and parameter.name not in options
    return False


def _check_options(
    kind: Kind, name: str, parameters: list[inspect.Parameter], options: Mapping[str, Any]
) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [p.name for p in parameters if p.kind in named and p.name.lstrip("_") != "weights"]
    for option in options:
        if option not in known:
            raise ConfigError(
                f"{kind} model {name!r} has no option {option!r}{suggest(option, known)}"
            )


_shared = Registry()

register_model = _shared.register
"""`@register_model("asr", "my_model")` on a class makes it a choice in every setting that names a
model.
"""


def shared_registry() -> Registry:
    """The registry that `register_model` fills."""
    return _shared
