"""The peer of the benches: the example's stock Pipecat bot, with models that can be compared.

Fakes with fixed delays (`--models fake`), or the very same back ends that Antiphon runs by default (`--models same`).
Logging and metrics are off, to its advantage. Runs in the environment that `setup` makes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "pipecat_bot"))

from pipeline import Services, application, serve


async def make_services(options: argparse.Namespace) -> Callable[[], Services]:
    """-> what makes the three services of one call. The same models are loaded once and shared by all calls."""
    from fakes import REPLY, FakeLlm, FakeStt, FakeTts

    if options.models == "fake":
        return lambda: (
            FakeStt(options.stt_ms),
            FakeLlm(options.llm_ms, options.word_ms, options.reply or REPLY),
            FakeTts(options.tts_ms),
        )
    from same_models import Shared

    shared = Shared(options.reply)
    await shared.load()
    return shared.services


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--port", type=int, default=8765, help="0: any free one")
    parser.add_argument("--models", choices=("fake", "same"), default="fake")
    parser.add_argument("--turn", choices=("vad", "smart"), default="smart")
    parser.add_argument(
        "--silence-s", type=float, default=0.6, help="that ends a turn, with --turn vad"
    )
    parser.add_argument("--stt-ms", type=float, default=0.0)
    parser.add_argument("--llm-ms", type=float, default=0.0)
    parser.add_argument("--word-ms", type=float, default=0.0)
    parser.add_argument("--tts-ms", type=float, default=0.0)
    parser.add_argument("--reply", default="", help="what the language model always says")
    parser.add_argument(
        "--stages", action="store_true", help="tell the steps of each turn on stderr"
    )
    return parser.parse_args()


def observers() -> list[Any]:
    from stages import StageObserver

    return [StageObserver()]


async def main() -> None:
    options = parsed()
    services = await make_services(options)
    watch = observers if options.stages else list
    await serve(application(services, options.turn, options.silence_s, watch), options.port)


if __name__ == "__main__":
    uvloop.run(main())
