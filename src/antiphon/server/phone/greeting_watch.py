"""Listens to the first half minute of a call that we made, and ends it, or leaves a message, if a machine has taken it.

`answering.py` judges; this module collects what it needs from a session, and acts. Knows no carrier.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.models.ports import STT_RATE_HZ
from antiphon.server.phone.answering import Answerer, BeepFinder, Heard, judge
from antiphon.session.session import Session

log = logging.getLogger(__name__)

_LISTEN_MS = 30_000
_SPEECH = 0.5
_GAP_MS = 200
"""Shorter holes in speech are none."""
_LEAST_SPEECH_MS = 96
_QUIET_MS = 2_500
"""A machine without a beep is ready for the message after so much silence."""
_GREETING_LIMIT_MS = 45_000


class GreetingWatch:
    """Of one call. `message`: left after the beep; empty: the call is ended. `told`: once, that it is a machine."""

    def __init__(self, session: Session, message: str, told: Callable[[], None]) -> None:
        self.who = Answerer.UNKNOWN
        self._message = message
        self._told = told
        self._speech: list[tuple[int, int]] = []
        self._words: dict[str, str] = {}
        self._beeps = BeepFinder(STT_RATE_HZ)
        self._beep = False
        self._at_ms = 0
        self._over = False
        session.observe(self._observe)

    def _observe(self, session: Session, event: ev.Event | None, out: list[act.Action]) -> None:
        if self._over:
            return
        for action in out:
            if isinstance(action, act.Transcript):
                self._words[action.item] = action.text
        if isinstance(event, ev.VadScored):
            self._hear(session, event)
            self._decide(session)

    def _hear(self, session: Session, event: ev.VadScored) -> None:
        pcm = session.heard_audio(self._at_ms, event.end_ms)
        start_ms, self._at_ms = self._at_ms, event.end_ms
        self._beep = self._beeps.feed(pcm) or self._beep
        if event.probability < _SPEECH:
            return
        if self._speech and start_ms - self._speech[-1][1] <= _GAP_MS:
            self._speech[-1] = (self._speech[-1][0], event.end_ms)
        else:
            self._speech.append((start_ms, event.end_ms))

    def _decide(self, session: Session) -> None:
        if self.who is Answerer.MACHINE:
            self._wait_for_beep(session)
            return
        speech = [s for s in self._speech if s[1] - s[0] >= _LEAST_SPEECH_MS]
        found = judge(Heard(self._at_ms, speech, " ".join(self._words.values()), self._beep))
        self.who = found.who
        if found.who is Answerer.MACHINE:
            log.info("call %s: an answering machine: %s", session.call_id, found.why)
            self._told()
            self._silence(session)
            self._wait_for_beep(session)
        elif found.who is Answerer.HUMAN or self._at_ms > _LISTEN_MS:
            self._over = True

    def _silence(self, session: Session) -> None:
        """The machine is not answered."""
        if not self._message:
            self._over = True
            session.post(ev.Finish("an answering machine"))
            return
        policy = session.view.policy
        session.post(ev.Configure(replace(policy, auto_reply=False, idle_prompt_after_ms=0)))
        session.post(ev.RequestCancel())

    def _wait_for_beep(self, session: Session) -> None:
        if self._over:
            return
        quiet_ms = self._at_ms - (self._speech[-1][1] if self._speech else 0)
        if self._beep or quiet_ms >= _QUIET_MS or self._at_ms > _GREETING_LIMIT_MS:
            self._over = True
            session.post(ev.Finish("left a message", say_goodbye=True, text=self._message))
