"""How a call ends, by the caller, by time or by a bug, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import numpy as np
import pytest
from tests.call.support import CallHarness, RecordingDoor, call
from tests.support import (
    STORY,
    broken_registry,
    loaded,
    model_set,
    nothing_left,
    run,
    say,
    until,
)

from antiphon.call.call import Call
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.conversation import Conversation
from antiphon.core.floor import Floor
from antiphon.core.state import State
from antiphon.models.model_set import FallbackConfig
from antiphon.models.ports import Kind
from antiphon.models.scripted import tone

RATE_HZ = 16_000

STAGES = (
    Floor.OPEN,
    Floor.CALLER,
    Floor.DECIDING,
    Floor.THINKING,
    Floor.AGENT,
    Floor.OVERLAP,
    Floor.CLOSING,
)


@pytest.mark.parametrize("stage", STAGES)
def test_hanging_up_frees_everything(stage: Floor) -> None:
    slow = {"delay_ms": 150.0, "rules": {"story": STORY}}

    async def main() -> None:
        models = model_set(llm=slow, tts={"word_ms": 100, "delay_ms": 50.0})
        session: weakref.ref[Call]
        async with nothing_left(), loaded(models):
            async with call(models, goodbye="Goodbye now my friend.") as line:
                session = weakref.ref(line.session)
                await reach(stage, line)
                line.session.post(ev.HungUp())
                await line.running
                transport = line.transport
            assert transport.hung_up == "caller hung up"
            assert isinstance(transport.actions[-1], act.Hangup)  # final
            del line
        assert models.backend(Kind.LLM).released == ["call"]
        await until(lambda: gc.collect() >= 0 and session() is None, "the session is kept alive")

    run(main())


async def reach(stage: Floor, line: CallHarness) -> None:
    session = line.session
    if stage in (Floor.CALLER, Floor.DECIDING):
        session.feed_audio(say(550, 640), RATE_HZ)
        await until(lambda: line.floor is Floor.CALLER)
    elif stage is Floor.CLOSING:
        session.post(ev.Finish("enough", say_goodbye=True))
    elif stage is not Floor.OPEN:
        session.feed_audio(say(550, silence_ms=1200), RATE_HZ)
    if stage is Floor.DECIDING:
        session.feed_audio(np.zeros(1600, np.int16), RATE_HZ)
    elif stage is Floor.OVERLAP:
        await line.playing("r1", 300)
        session.feed_audio(tone(880, 200, RATE_HZ), RATE_HZ)
    await until(lambda: line.floor is stage, f"{line.floor}, not {stage}")


def test_hanging_up_stops_the_language_model() -> None:
    """Its lane has one place: a reply that goes on for nobody would hold up the next call."""

    async def main() -> None:
        models = model_set(llm={"rules": {"story": STORY * 50}, "piece_delay_ms": 20.0})
        async with loaded(models):
            async with call(models) as line:
                line.session.feed_audio(say(550, silence_ms=1200), RATE_HZ)
                await until(lambda: line.transport.all(act.ReplyWords))
            stats = models.scheduler_stats()["llm:scripted"]
            assert (stats.running, stats.depth) == (0, 0)

    run(main())


def test_cancelled_twice_still_releases_its_place() -> None:
    async def main() -> None:
        models = model_set()
        async with nothing_left(), loaded(models):
            with contextlib.suppress(asyncio.CancelledError):
                async with call(models) as line:
                    line.session.feed_audio(say(550, silence_ms=1200), RATE_HZ)
                    await line.playing()
                    line.running.cancel()
                    await until(lambda: line.transport.hung_up)
                    line.running.cancel()
            await until(lambda: models.backend(Kind.LLM).released == ["call"])

    run(main())


@pytest.mark.parametrize("where", ["handle", "tick", "deadline", "needed_from_ms"])
def test_a_bug_in_the_core_ends_only_its_call(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner: type[Conversation | State] = State if where == "needed_from_ms" else Conversation
    whole = getattr(owner, where)

    def failing(self: Conversation | State, *arguments: object) -> object:
        view = self.view if isinstance(self, Conversation) else self
        if view.policy.goodbye == "unlucky" and view.floor is not Floor.OPEN:
            raise AssertionError("a bug")
        return whole(self, *arguments)

    monkeypatch.setattr(owner, where, failing)

    async def main() -> None:
        models = model_set()
        async with (
            nothing_left(),
            loaded(models),
            call(models, goodbye="unlucky") as bad,
            call(models) as good,
        ):
            for line in (bad, good):
                line.session.feed_audio(say(440, silence_ms=1200), RATE_HZ)
            await bad.running
            assert bad.transport.hung_up == "error"
            assert [f.code for f in bad.transport.all(act.Fault)] == ["internal_error"]
            assert (await good.ended()).heard == "It is noon."

    run(main())
    assert "a bug" in caplog.text


def test_a_bug_in_a_door_ends_only_its_call() -> None:
    class Faulty(RecordingDoor):
        def send_audio(self, reply: str, pcm: object) -> None:
            raise RuntimeError("a bug")

    async def main() -> None:
        async with nothing_left(), call(transport=Faulty()) as line:
            line.session.feed_audio(say(440, silence_ms=1200), RATE_HZ)
            await line.running
            assert line.transport.hung_up == "error"

    run(main())


def test_longest_duration() -> None:
    async def main() -> None:
        async with nothing_left(), call(max_s=0.1) as line:
            await line.running
            assert line.transport.hung_up == "the call reached its longest duration"

    run(main())


def test_failing_voice_activity_does_not_end_the_call() -> None:
    async def main() -> None:
        models = model_set(FallbackConfig(Kind.VAD, ("broken",)), registry=broken_registry())
        async with nothing_left(), loaded(models), call(models) as line:
            line.session.feed_audio(say(440, silence_ms=320), RATE_HZ)
            await until(lambda: line.session.unscored_windows == 25)
            line.session.post(ev.UserText("what time is it"))
            assert (await line.ended()).heard == "It is noon."

    run(main())
