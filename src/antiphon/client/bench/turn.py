"""How long a caller waits for an answer over the telephone wire, and how often the agent cuts them off.

The servers that are compared run at the same time, and are asked in turns, a few questions a call: what disturbs the
machine disturbs both. Everything is measured from what the caller hears; only the stages are the server's own word.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from antiphon.client.bench import loops
from antiphon.client.bench.percentiles import percentiles
from antiphon.client.bench.servers import Contender, Running, running
from antiphon.client.bench.traced_records import Traces, stages_of
from antiphon.client.phone.caller import Number, PhoneCall
from antiphon.client.phone.clips import FRAME_BYTES, Clip
from antiphon.client.phone.measure import TurnFigures, measure
from antiphon.errors import AntiphonError

LIMIT_S = 30.0
"""Of the wait for an answer, and of the answer."""
QUIET_MS = 800


@dataclass(frozen=True, slots=True)
class BenchQuestion:
    clip: Clip
    has_pause: bool
    """In mid-sentence."""


@dataclass(slots=True)
class Contestant:
    """One server that is measured, and what came of it so far."""

    contender: Contender
    traces: Traces | None = None
    """Of a server of ours."""
    turns: list[tuple[BenchQuestion, TurnFigures]] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


_UNHEARD = TurnFigures("", 0, 0, False, None, False, None, False, 0, 0, False, 0, 0, 0)
"""Of a question that could not even be asked."""

Told = Callable[[str, BenchQuestion, TurnFigures], None]


def compare(
    contestants: Sequence[Contestant],
    questions: Sequence[BenchQuestion],
    *,
    per_call: int,
    core: int | None,
    on_turn: Told,
) -> None:
    """Ask all of them everything. Blocking. Raises ModelError when a server does not start."""
    with ExitStack() as stack:
        servers = [stack.enter_context(running(one.contender, core)) for one in contestants]
        loops.run(_interleave(contestants, servers, questions, per_call, on_turn))


async def _interleave(
    contestants: Sequence[Contestant],
    servers: Sequence[Running],
    questions: Sequence[BenchQuestion],
    per_call: int,
    on_turn: Told,
) -> None:
    for one, server in zip(contestants, servers, strict=True):
        await ask(Contestant(one.contender, one.traces), server, questions[:1], lambda *_: None)
    for at in range(0, len(questions), per_call):
        block = questions[at : at + per_call]
        for one, server in zip(contestants, servers, strict=True):
            await ask(one, server, block, on_turn)


async def ask(
    one: Contestant, server: Running, block: Sequence[BenchQuestion], on_turn: Told
) -> None:
    """One call. What goes wrong is told in the result: what could not be asked counts as unanswered."""
    call = PhoneCall(Number(stream_url=server.url), [asked.clip for asked in block])
    told = len(server.lines)
    try:
        async with call:
            await call.wait(0.5)
            for asked in block:
                place = await call.say(asked.clip)
                since = place.speech_end // FRAME_BYTES
                if await call.agent_speaks(LIMIT_S, since_step=since) is not None:
                    await call.agent_finished(QUIET_MS, LIMIT_S)
    except AntiphonError as error:
        one.troubles.append(str(error))
    heard: list[TurnFigures] = []
    if call.ended:
        heard = await asyncio.to_thread(measure, call.recording(), call.asked)
    missing = [_UNHEARD] * (len(block) - len(heard))
    for asked, turn in zip(block, (*heard, *missing), strict=True):
        one.turns.append((asked, turn))
        on_turn(one.contender.name, asked, turn)
    if one.traces is not None:
        found = await one.traces.next_call()
        kept = [r for r in found if r.get("kind", "answer") == "answer"]
        one.stages += [stages for stages in map(stages_of, kept) if "sent" in stages]
    else:
        one.stages += server.stages_since(told)


def summary(contestants: Iterable[Contestant]) -> dict[str, Any]:
    """The ratio of the medians first, then each server's figures."""
    contenders = {one.contender.name: _summed(one) for one in contestants}
    names = list(contenders)
    ratio = None
    if len(names) > 1:
        ours, theirs = (contenders[name]["voice_to_voice_ms"] for name in names[:2])
        ratio = round(ours["median"] / theirs["median"], 3) if ours and theirs else None
    return {"ratio": ratio, "arms": contenders}


def _summed(one: Contestant) -> dict[str, Any]:
    def delays(wanted: Callable[[BenchQuestion], bool]) -> dict[str, float] | None:
        return percentiles(
            t.voice_to_voice_ms
            for asked, t in one.turns
            if t.voice_to_voice_ms is not None and wanted(asked)
        )

    return {
        "voice_to_voice_ms": delays(lambda asked: True),
        "fluent_ms": delays(lambda asked: not asked.has_pause),
        "with_pause_ms": delays(lambda asked: asked.has_pause),
        "turns": len(one.turns),
        "unanswered": sum(not turn.answered for _, turn in one.turns),
        "cut_off": sum(turn.talked_over for _, turn in one.turns),
        "with_pause": sum(asked.has_pause for asked, _ in one.turns),
        "gaps": sum(turn.gaps for _, turn in one.turns),
        "stages_ms": _medians(one.stages),
        "troubles": one.troubles[:20],
        "each": [
            {
                "question": asked.clip.name,
                "pause": asked.has_pause,
                "voice_to_voice_ms": turn.voice_to_voice_ms,
                "cut_off": turn.talked_over,
                "answer_ms": turn.answer_ms,
            }
            for asked, turn in one.turns
        ],
    }


def _medians(stages: Sequence[dict[str, float]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for found in stages for name in found))
    return {
        name: round(statistics.median(found[name] for found in stages if name in found), 1)
        for name in names
    }
