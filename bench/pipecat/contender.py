"""The Pipecat bot as a contender of `antiphon bench`: with the same delays or the same models as ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

from antiphon.client.bench.contenders import SILENCE_MS, MakePeer, SimulatedDelays
from antiphon.client.bench.servers import Contender
from antiphon.errors import ConfigError

FOLDER = Path("bench/pipecat")
"""The bot, in the project's source; `setup` beside it makes its environment."""


def find(given: str) -> MakePeer | None:
    """`given`: the folder of the bot's environment; empty: where `setup` puts it, if it is there.

    Raises ConfigError.
    """
    folder = Path(given) if given else FOLDER / ".venv"
    python = folder / "bin" / "python"
    if python.is_file():
        return partial(contender, python)
    if given:
        raise ConfigError(
            f"no Python in {folder}; make the environment with {FOLDER}/setup {folder}"
        )
    return None


def contender(
    python: Path, name: str, turn: str, delays: SimulatedDelays | None, reply: str = ""
) -> Contender:
    """`delays`: of its fakes; None: the same models as ours. `reply`: what its language model always says."""
    command = [str(python), str(FOLDER / "bot.py"), "--port", "0", "--turn", turn]
    command += ["--silence-s", f"{SILENCE_MS / 1000:g}"]
    if reply:
        command += ["--reply", reply]
    if delays is None:
        command += ["--models", "same", "--stages"]
    else:
        for option, value in _options(delays).items():
            command += [option, f"{value:g}"]
    return Contender(name, command)


def _options(delays: SimulatedDelays) -> Mapping[str, float]:
    return {f"--{name.replace('_', '-')}": value for name, value in asdict(delays).items()}
