"""What happens when the caller makes a sound while the agent speaks: it should stop for words, and for nothing else.

One call per trial: a question, a long answer, and at a random moment in it an interruption ("Stop, please."), a sign
of listening ("mm-hm"), a cough, or the agent's own voice come back at -20 dB. How fast it stopped is heard in the call;
whether it went on where it had paused, or began anew, only a server of ours can tell, by its trace. A peer that drops
its audio has stopped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from antiphon.audio import g711
from antiphon.audio.framing import Pcm16
from antiphon.client.bench import loops
from antiphon.client.bench.percentiles import percentiles
from antiphon.client.bench.servers import Running, running
from antiphon.client.bench.turn import Contestant
from antiphon.client.phone.caller import Number, PhoneCall
from antiphon.client.phone.carrier_playback import Playback
from antiphon.client.phone.clips import FRAME_BYTES, FRAME_MS, RATE_HZ, SILENCE, Clip, ClipFrame
from antiphon.client.phone.measure import measure
from antiphon.errors import AntiphonError

INTERRUPTIONS = (
    "Stop, please.",
    "Wait a moment, I have a question.",
    "No, I meant something else.",
    "Can you tell me about tomorrow instead?",
)
SIGNS = ("Mm-hm.", "Yeah.", "Okay.", "Uh-huh.")
"""Of listening: no reason to stop."""
STORY = (
    "Once upon a time there was a small house at the edge of a great forest, and in it there lived an old "
    "clockmaker who had never been further away than the next village. Every morning he opened his window, looked "
    "at the trees and said good day to them. One autumn a letter came, and nobody knew who had sent it. It said that "
    "far away, behind the mountains, there was a tower with a clock that had stopped many years ago, and that he was "
    "the only one who could bring it back to life. So he packed his tools, locked his door, and went on his way."
)
"""What the agent says, long enough to be interrupted."""
ECHO_DB = -20.0
ECHO_DELAY_MS = 140
_ECHO_MS = 1_600
_MOMENT_S = (0.5, 4.0)
"""Into the answer."""
_LIMIT_S = 20.0
_AFTER_S = 2.6
"""Listened to after the caller's sound: an agent that paused has decided by then."""


@dataclass(frozen=True, slots=True)
class Trial:
    kind: str
    """`interruption` or `backchannel`."""
    name: str
    clip: Clip | None
    """None: the agent's own voice."""
    after_s: float
    """Into the answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    kind: str
    name: str
    after_s: float
    result: str
    """`stopped`, `resumed`, `unmoved`, or `failed` where the trial could not be made."""
    stop_ms: float | None = None
    """First audible sample of the caller's sound to the last of the agent, where it stopped."""
    trouble: str = ""


@dataclass(frozen=True)
class LiveEcho:
    """A clip that is made while it is said: what was heard a moment ago, 20 dB softer."""

    playback: Playback
    begins: int
    """Samples that had been heard when it began: frames may be asked for two at a time, and must follow each other."""
    name: str = "echo"
    speech_start: int = 0
    speech_end: int = _ECHO_MS * RATE_HZ // 1000
    noise_snr_db: float | None = None

    @property
    def frames(self) -> LiveEcho:
        return self

    def __len__(self) -> int:
        return _ECHO_MS // FRAME_MS

    def __getitem__(self, index: int) -> ClipFrame:
        at = max(self.begins + index * FRAME_BYTES - ECHO_DELAY_MS * RATE_HZ // 1000, 0)
        heard = self.playback.heard[at : at + FRAME_BYTES]
        pcm = g711.decode_ulaw(bytes(heard) or SILENCE).astype(np.float64)
        softer = np.rint(pcm * 10 ** (ECHO_DB / 20)).astype(np.int16)
        return ClipFrame.of(g711.encode_ulaw(softer).ljust(FRAME_BYTES, SILENCE[:1]))


def cough(seed: int) -> Pcm16:
    """Two bursts of noise that die away, at 8 kHz; as loud as speech, without a voice in it."""
    noise = np.random.default_rng(seed)
    parts = []
    for length_ms, level in ((180, 6_000.0), (120, 4_000.0)):
        size = length_ms * RATE_HZ // 1000
        fall = np.exp(-4 * np.arange(size) / size)
        parts += [noise.normal(0, level, size) * fall, np.zeros(60 * RATE_HZ // 1000)]
    sound: Pcm16 = np.clip(np.concatenate(parts), -32768, 32767).astype(np.int16)
    return sound


def trials(
    interruptions: Sequence[Clip],
    signs: Sequence[Clip],
    coughs: Sequence[Clip],
    count: int,
    seed: int,
) -> list[Trial]:
    """`count` of each kind, mixed, at random moments; the same for the same seed."""
    chance = random.Random(seed)
    small: list[Clip | None] = [*signs, *coughs[:1], None]
    found = []
    for index in range(count):
        loud = interruptions[index % len(interruptions)]
        soft = small[index % len(small)]
        if soft is not None and soft.name == "cough":
            soft = coughs[index % len(coughs)]
        name = "echo" if soft is None else soft.name
        found.append(Trial("interruption", loud.name, loud, chance.uniform(*_MOMENT_S)))
        found.append(Trial("backchannel", name, soft, chance.uniform(*_MOMENT_S)))
    chance.shuffle(found)
    return found


def compare(
    contestants: Sequence[Contestant],
    question: Clip,
    wanted: Sequence[Trial],
    *,
    core: int | None,
    on_trial: Callable[[str, Outcome], None],
) -> dict[str, list[Outcome]]:
    """Every trial with every server, one after the other -> by server. Blocking. Raises ModelError."""

    async def all_of_them() -> None:
        for trial in wanted:
            for one, server in zip(contestants, servers, strict=True):
                outcome = await attempt(one, server, question, trial)
                found[one.contender.name].append(outcome)
                on_trial(one.contender.name, outcome)

    found: dict[str, list[Outcome]] = {one.contender.name: [] for one in contestants}
    with ExitStack() as stack:
        servers = [stack.enter_context(running(one.contender, core)) for one in contestants]
        loops.run(all_of_them())
    return found


async def attempt(one: Contestant, server: Running, question: Clip, trial: Trial) -> Outcome:
    """One call."""
    call = PhoneCall(Number(stream_url=server.url))
    trouble = ""
    try:
        async with call:
            trouble = await _interrupt(call, question, trial)
    except AntiphonError as error:
        trouble = str(error)
    records = await one.traces.next_call() if one.traces is not None and call.ended else None
    if trouble:
        return Outcome(trial.kind, trial.name, trial.after_s, "failed", None, trouble)
    recording = call.recording()
    figures = await asyncio.to_thread(measure, recording, call.asked)
    cleared = any(at >= call.asked[1].speech_start for at in recording.clears)
    return judge(trial, figures[1].barge_in_to_silence_ms, cleared, records)


async def _interrupt(call: PhoneCall, question: Clip, trial: Trial) -> str:
    """-> why the trial could not be made; empty where it was."""
    await call.wait(0.3)
    asked = await call.say(question)
    begun = await call.agent_speaks(_LIMIT_S, since_step=asked.speech_end // FRAME_BYTES)
    if begun is None:
        return "the question was not answered"
    heard_s = (call.line.step - begun) * FRAME_MS / 1000
    await call.wait(max(trial.after_s - heard_s, 0))
    if not call.line.playback.buffered_ms and not any(call.line.playback.audible[-25:]):
        return "the answer was over before"
    playback = call.line.playback
    sound = trial.clip or cast(Clip, LiveEcho(playback, len(playback.heard)))
    await call.say(sound)
    await call.wait(_AFTER_S)
    return ""


def judge(
    trial: Trial,
    silent_after_ms: float | None,
    cleared: bool,
    records: Sequence[Mapping[str, Any]] | None,
) -> Outcome:
    """`cleared`: it had its audio dropped after the sound began. `silent_after_ms`: when it was last heard then.

    `records`: of a server of ours, the turns of this call; None: of a peer, which drops its audio only to stop.
    """
    if records is None:
        result = "stopped" if cleared else "unmoved"
    else:
        # The trial ends with a hang-up, which counts as an interruption of whatever is being said then.
        turns = {r.get("number", 0) for r in records if r.get("kind", "answer") == "answer"}
        alarms = sum(r.get("false_alarms", 0) for r in records)
        if len(turns) > 1 or (cleared and not alarms):
            result = "stopped"
        else:
            result = "resumed" if cleared or alarms else "unmoved"
    stop_ms = silent_after_ms if result == "stopped" else None
    return Outcome(trial.kind, trial.name, round(trial.after_s, 2), result, stop_ms)


def summary(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    return {"arms": {name: _summed(found) for name, found in outcomes.items()}}


def _summed(found: Sequence[Outcome]) -> dict[str, Any]:
    names = sorted({one.name for one in found if one.kind == "backchannel"})
    return {
        "interruptions": _counts([one for one in found if one.kind == "interruption"]),
        "backchannels": _counts([one for one in found if one.kind == "backchannel"]),
        "by_sound": {
            name: _counts([one for one in found if one.name == name and one.kind == "backchannel"])
            for name in names
        },
        "each": [asdict(one) for one in found],
    }


def _counts(found: Iterable[Outcome]) -> dict[str, Any]:
    outcomes = list(found)
    results = [one.result for one in outcomes]
    return {
        "count": len(outcomes),
        **{name: results.count(name) for name in ("stopped", "resumed", "unmoved", "failed")},
        "stop_ms": percentiles(one.stop_ms for one in outcomes if one.stop_ms is not None),
    }
