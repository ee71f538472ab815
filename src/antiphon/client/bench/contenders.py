"""The servers that are compared, as command lines: with the same simulated delays or the same models."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from antiphon.client.bench.servers import Contender
from antiphon.errors import ConfigError

PEER = Path("bench/pipecat/contender.py")
"""The peer's side of the comparison, in the project's source and not in the wheel."""
SILENCE_MS = 600
"""Ends a turn where there is no turn detector, on both sides."""


@dataclass(frozen=True, slots=True)
class SimulatedDelays:
    """Of the models that are faked, in ms."""

    stt_ms: float = 120.0
    llm_ms: float = 150.0
    """To the first word."""
    word_ms: float = 15.0
    """From word to word."""
    tts_ms: float = 80.0


def antiphon(name: str, sets: Sequence[str]) -> Contender:
    """This package's server, with these settings over those of the machine's owner."""
    command = [sys.executable, "-m", "antiphon", "serve", "--host", "127.0.0.1", "--port", "0"]
    for item in ("security.local=true", *sets):
        command += ["--set", item]
    return Contender(name, command)


QUIET = ("conversation.greeting=", "phone.greeting=", "conversation.idle_prompt_after_ms=0")
"""Nobody speaks unless spoken to."""
OPEN = ("server.max_calls=100000", "server.max_loop_lag_ms=0", "server.max_model_wait_ms=0")
"""Every call is taken: the limit of the server is looked for, not that of its settings."""


def simulated_models(delays: SimulatedDelays) -> tuple[str, ...]:
    """Settings of a server with real voice activity detection, and everything else on machines that are not there."""
    options = "models.options.{}.scripted-remote.{}={}"
    return (
        *(f"models.{kind}=scripted-remote" for kind in ("stt", "llm", "tts")),
        options.format("stt", "delay_ms", delays.stt_ms),
        options.format("llm", "delay_ms", delays.llm_ms),
        options.format("llm", "word_delay_ms", delays.word_ms),
        options.format("tts", "delay_ms", delays.tts_ms),
    )


def capacity_contenders(
    delays: SimulatedDelays, sets: Sequence[str], peer: MakePeer | None
) -> list[Contender]:
    """Ours and, where there is one, the peer's, interleaved: by silence only, and with Smart Turn."""
    ours = (*simulated_models(delays), *QUIET, *OPEN)
    silence = ("models.turn=", f"conversation.plain_silence_ms={SILENCE_MS}")
    contenders = [antiphon("antiphon", (*ours, *silence, *sets))]
    if peer is not None:
        contenders.append(peer("pipecat", "vad", delays))
    contenders.append(antiphon("antiphon + smart turn", (*ours, *sets)))
    if peer is not None:
        contenders.append(peer("pipecat + smart turn", "smart", delays))
    return contenders


def turn_contenders(sets: Sequence[str], peer: MakePeer | None) -> list[Contender]:
    """The default models on both sides, with Smart Turn."""
    contenders = [antiphon("antiphon", (*QUIET, *sets))]
    if peer is not None:
        contenders.append(peer("pipecat", "smart", None))
    return contenders


def interruption_contenders(
    sets: Sequence[str], peer: MakePeer | None, story: str
) -> list[Contender]:
    """The default models, but the language model always tells a long story: there must be something to interrupt."""
    ours = ("models.llm=scripted-remote", f"models.options.llm.scripted-remote.reply={story}")
    contenders = [antiphon("antiphon", (*ours, *QUIET, *sets))]
    if peer is not None:
        contenders.append(peer("pipecat", "smart", None, story))
    return contenders


_SHORT = "Yes, of course."


def soak_contender(faked_models: bool, sets: Sequence[str]) -> Contender:
    """Short answers, so that there can be many calls."""
    if not faked_models:
        return antiphon("antiphon", (*QUIET, *OPEN, "agent.max_tokens=24", *sets))
    short = (f"models.options.llm.scripted-remote.reply={_SHORT}", "models.turn=")
    delays = simulated_models(SimulatedDelays(stt_ms=20, llm_ms=20, word_ms=2, tts_ms=20))
    return antiphon("antiphon", (*delays, *short, *QUIET, *OPEN, *sets))


class MakePeer(Protocol):
    """Makes the peer a contender; see `bench/pipecat/contender.py`."""

    def __call__(
        self, name: str, turn: str, delays: SimulatedDelays | None, reply: str = ""
    ) -> Contender: ...


def find_peer(given: str) -> MakePeer | None:
    """`given`: the folder of the peer's environment; empty: where `setup` puts it, if it is there; `none`: no peer.

    Raises ConfigError.
    """
    if given == "none":
        return None
    if not PEER.is_file():
        if given:
            raise ConfigError(
                f"the peer's bot is in the project's source ({PEER}, with bench/pipecat/setup); run this from there"
            )
        return None
    module = runpy.run_path(str(PEER))
    found: MakePeer | None = module["find"](given)
    return found
