"""The five things a model can be to a call: the ports that every back end implements.

A back end is a plain class. It is constructed with a `WeightSource` and its own options, loaded once per
process and shared by all calls. Its methods may be blocking functions and generators (they then run on the
threads of its scheduler, never on the event loop) or coroutines and async generators (they then run on the event
loop, for back ends that only wait for a network). A back end knows nothing of calls, turns or queues.

Audio is always mono signed 16-bit PCM as a NumPy array of shape [samples].
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from antiphon.audio.framing import Pcm16 as Pcm16

STT_RATE_HZ = 16_000
"""Speech to text and turn detection always hear 16 kHz."""


class Kind(StrEnum):
    """What a model is for. `asr` is accepted wherever a kind is named by a user and means `stt`."""

    VAD = "vad"
    TURN = "turn"
    STT = "stt"
    LLM = "llm"
    TTS = "tts"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model says of itself, for `/ready`, logs and documentation."""

    name: str
    """Registry name, e.g. `moonshine`."""
    detail: str = ""
    """Weights, device or endpoint, e.g. `tiny-en, cpu, 1 thread`. Never a secret."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes; empty: unknown or any."""
    voices: tuple[str, ...] = ()
    """Voices that may be asked for; empty: only its own. Text to speech only."""
    licence: str = ""
    """Licence of the weights where it restricts the owner."""
    partials: bool = False
    """Cheap enough to transcribe an utterance again and again while it is being spoken. STT only."""
    calls_functions: bool = True
    """False: too small to know when to call one. Given some all the same, it may. Language models only."""


class WeightSource(Protocol):
    """Where a back end gets its weight files: the model store, or a folder in a test."""

    def files(self, name: str) -> Mapping[str, Path]:
        """All files of the catalogue entry `name`, fetched and verified when needed: file name -> path.

        Blocking. Raises WeightsError with what to do.
        """
        ...


@runtime_checkable
class Model(Protocol):
    """What all back ends share.

    Constructed as `Backend(weights, **options)`. The constructor only keeps its arguments; all work,
    imports of heavy libraries included, is done in `load()`.
    """

    info: ModelInfo

    def load(self) -> Awaitable[None] | None:
        """Get ready to serve. Raises ModelError with what to install or set."""
        ...

    def close(self) -> Awaitable[None] | None:
        """Free everything. Called once, after the last request has ended."""
        ...


# --- voice activity ---------------------------------------------------------------------------------


class Vad(Model, Protocol):
    """Speech probability per short window. Batches over calls: state is kept by the caller."""

    rates_hz: ClassVar[tuple[int, ...]]
    """Sample rates it takes natively."""

    def window_samples(self, rate_hz: int) -> int:
        """Samples of one window at this rate (32 ms for Silero: 256 at 8 kHz, 512 at 16 kHz)."""
        ...

    def new_state(self, rate_hz: int) -> Any:
        """State of one call; mutated by `score`."""
        ...

    def score(self, windows: Sequence[Pcm16], states: Sequence[Any]) -> Sequence[float]:
        """One window of each of several calls -> speech probabilities 0..1, in order.

        All states of one request have the same rate. Shapes: each window [window_samples(rate)].
        """
        ...


# --- end of turn ------------------------------------------------------------------------------------


class TurnDetector(Model, Protocol):
    """Does this sound like somebody who has finished?"""

    def predict(self, audio: Pcm16) -> float | Awaitable[float]:
        """The utterance so far at 16 kHz, ending with its last silence -> probability 0..1 of a finished turn."""
        ...


# --- speech to text ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transcript:
    text: str
    """Empty when there was no speech."""
    language: str | None = None
    """ISO 639-1, when the model detected one."""


class SpeechToText(Model, Protocol):
    def transcribe(
        self, audio: Pcm16, *, language: str | None = None, partial: bool = False
    ) -> Transcript | Awaitable[Transcript]:
        """Audio at 16 kHz, any length from one sample to minutes. `partial`: the speaker is still at it."""
        ...


# --- language model ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    call_id: str
    name: str
    arguments: str
    """A JSON object as text, as the model wrote it."""


@dataclass(frozen=True, slots=True)
class ToolPart:
    """More of the arguments of a tool call that is still being written."""

    call_id: str
    """The one that the whole call will bear."""
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a chat history."""

    role: str
    """`system`, `user`, `assistant` or `tool`."""
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant message."""
    tool_call_id: str = ""
    """Of a tool message: the call it answers."""


@dataclass(frozen=True, slots=True)
class LlmRequest:
    messages: tuple[Message, ...]
    call_id: str = ""
    """Same for every request of one call: a back end may keep its prompt cache (slot) by it."""
    max_tokens: int = 200
    temperature: float = 0.6
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tool definitions in the chat-completions form: {"type": "function", "function": {...}}."""
    tool_choice: Any = None
    """As in chat completions: "auto", "none", "required" or a named function; None: the model's default."""
    response_schema: Mapping[str, Any] | None = None
    """JSON schema that the reply is to follow. Back ends that cannot see to it ignore it: check what comes."""
    judge_words: bool = False
    """Tell, ahead of the reply, how likely the user's last words end there. Back ends that cannot leave it out."""


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class LlmDelta:
    """A piece of a reply. The last one of a reply carries `finish` and, where known, `usage`."""

    text: str = ""
    tool_call: ToolCall | None = None
    """A whole tool call, given out once its arguments are complete."""
    tool_part: ToolPart | None = None
    """A piece of one that will follow whole. For show only, and not every back end knows pieces."""
    ends_here: float | None = None
    """For `judge_words`: the probability that the user's last words are a whole."""
    finish: str = ""
    """`stop`, `length` or `tool_calls` on the last delta."""
    usage: Usage | None = None


class LanguageModel(Model, Protocol):
    def generate(self, request: LlmRequest) -> Iterator[LlmDelta] | AsyncIterator[LlmDelta]:
        """Stream a reply. Closing the iterator stops the generation at once and frees its slot."""
        ...

    def warm(self, request: LlmRequest) -> Awaitable[None] | None:
        """Read `request` into the prompt cache without answering.

        The last message is what the user has said so far and may still grow: the end-of-turn tokens after it
        must not be read. A back end without a prompt cache does nothing.
        """
        ...

    def release(self, call_id: str) -> Awaitable[None] | None:
        """The call has ended: free whatever was kept for it. Unknown ids are ignored."""
        ...


# --- text to speech ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    text: str
    voice: str = ""
    """Empty: the back end's default."""
    language: str = ""
    """ISO 639-1; empty: the voice's own."""
    speed: float = 1.0
    """1.0 is the voice's natural pace; 0.5 to 2.0."""


class TextToSpeech(Model, Protocol):
    sample_rate_hz: int
    """Of everything `synthesize` yields; known after `load()`."""

    def synthesize(self, request: SpeechRequest) -> Iterator[Pcm16] | AsyncIterator[Pcm16]:
        """Stream the audio of one clause or sentence, in order. Text without anything to say yields nothing.

        A back end that can learn a voice from a recording also has `learn_voice(name: str, clip: Path) -> None`.
        """
        ...


# --- how models are described in /ready -------------------------------------------------------------


@dataclass(slots=True)
class ModelStatus:
    """One link of a chain, as `/ready` shows it."""

    kind: Kind
    name: str
    state: str = "waiting"
    """`waiting`, `loading`, `ready`, `failed` or `standby` (a fallback that is not loaded)."""
    detail: str = ""
    load_s: float | None = None
    error: str = ""
    in_use: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
