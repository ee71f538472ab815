"""The servers that are compared, as command lines: ours and the peer's, with the same fixed delays or the same models.

Knows what is set on each side; not how either is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from antiphon.client.bench.servers import Arm
from antiphon.errors import ConfigError

PEER = Path("bench/pipecat")
"""The peer's bot, in the project's source; `setup` beside it makes its environment."""
_SILENCE_MS = 600
"""Ends a turn where there is no turn detector, on both sides."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Of the models that are faked, in ms."""

    stt_ms: float = 120.0
    llm_ms: float = 150.0
    """To the first word."""
    word_ms: float = 15.0
    """From word to word."""
    tts_ms: float = 80.0


def antiphon(name: str, sets: Sequence[str]) -> Arm:
    """This package's server, with these settings over those of the machine's owner."""
    command = [sys.executable, "-m", "antiphon", "serve", "--host", "127.0.0.1", "--port", "0"]
    for item in ("security.local=true", *sets):
        command += ["--set", item]
    return Arm(name, command)


QUIET = ("conversation.greeting=", "phone.greeting=", "conversation.idle_prompt_after_ms=0")
"""Nobody speaks unless spoken to."""
OPEN = ("server.max_calls=100000", "server.max_loop_lag_ms=0", "server.max_lane_wait_ms=0")
"""Every call is taken: the limit of the server is looked for, not that of its settings."""


def faked(delays: Delays) -> tuple[str, ...]:
    """Settings of a server with real voice activity detection, and everything else on machines that are not there."""
    options = "models.options.{}.scripted-remote.{}={}"
    return (
        *(f"models.{kind}=scripted-remote" for kind in ("stt", "llm", "tts")),
        options.format("stt", "delay_ms", delays.stt_ms),
        options.format("llm", "delay_ms", delays.llm_ms),
        options.format("llm", "word_delay_ms", delays.word_ms),
        options.format("tts", "delay_ms", delays.tts_ms),
    )


def capacity_arms(delays: Delays, sets: Sequence[str], peer: Path | None) -> list[Arm]:
    """Ours and, where there is one, the peer's, interleaved: by silence only, and with Smart Turn."""
    ours = (*faked(delays), *QUIET, *OPEN)
    silence = ("models.turn=", f"conversation.plain_silence_ms={_SILENCE_MS}")
    arms = [antiphon("antiphon", (*ours, *silence, *sets))]
    if peer is not None:
        arms.append(pipecat("pipecat", peer, "vad", delays))
    arms.append(antiphon("antiphon + smart turn", (*ours, *sets)))
    if peer is not None:
        arms.append(pipecat("pipecat + smart turn", peer, "smart", delays))
    return arms


def turn_arms(sets: Sequence[str], peer: Path | None) -> list[Arm]:
    """The default models on both sides, with Smart Turn."""
    arms = [antiphon("antiphon", (*QUIET, *sets))]
    if peer is not None:
        arms.append(pipecat("pipecat", peer, "smart", None))
    return arms


def barge_in_arms(sets: Sequence[str], peer: Path | None, story: str) -> list[Arm]:
    """The default models, but the language model always tells a long story: there must be something to interrupt."""
    ours = ("models.llm=scripted-remote", f"models.options.llm.scripted-remote.reply={story}")
    arms = [antiphon("antiphon", (*ours, *QUIET, *sets))]
    if peer is not None:
        arms.append(pipecat("pipecat", peer, "smart", None, story))
    return arms


_SHORT = "Yes, of course."


def soak_arm(faked_models: bool, sets: Sequence[str]) -> Arm:
    """Short answers, so that there can be many calls."""
    if not faked_models:
        return antiphon("antiphon", (*QUIET, *OPEN, "agent.max_tokens=24", *sets))
    short = (f"models.options.llm.scripted-remote.reply={_SHORT}", "models.turn=")
    delays = faked(Delays(stt_ms=20, llm_ms=20, word_ms=2, tts_ms=20))
    return antiphon("antiphon", (*delays, *short, *QUIET, *OPEN, *sets))


def pipecat(name: str, python: Path, turn: str, delays: Delays | None, reply: str = "") -> Arm:
    """`delays`: of its fakes; None: the same models as ours. `reply`: what its language model always says."""
    bot = PEER / "bot.py"
    if not bot.is_file():
        raise ConfigError(f"the peer's bot is in the project's source: {bot}; run this from there")
    command = [str(python), str(bot), "--port", "0", "--turn", turn]
    command += ["--silence-s", f"{_SILENCE_MS / 1000:g}"]
    if reply:
        command += ["--reply", reply]
    if delays is None:
        command += ["--models", "same", "--stages"]
    else:
        for option, value in _peer_delays(delays).items():
            command += [option, f"{value:g}"]
    return Arm(name, command)


def _peer_delays(delays: Delays) -> Mapping[str, float]:
    return {f"--{name.replace('_', '-')}": value for name, value in asdict(delays).items()}


def find_peer(given: str) -> Path | None:
    """The Python of the peer's environment; `none`: no peer; empty: where `setup` puts it, if it is there.

    Raises ConfigError.
    """
    if given == "none":
        return None
    folder = Path(given) if given else PEER / ".venv"
    python = folder / "bin" / "python"
    if python.is_file():
        return python
    if given:
        raise ConfigError(f"no Python in {folder}; make the environment with {PEER}/setup {folder}")
    return None
