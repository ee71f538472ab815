"""The OpenAI Realtime protocol as one object: a client's frame or an action of the core in, effects out.

    for effect in codec.receive(frame, view): ...    frames to send, events for the core, audio to hear
    for effect in codec.notice(action, view): ...    what the client is told of an action
    for effect in codec.voice(reply, pcm): ...       a piece of the agent's voice

Nothing here waits, and nothing is called back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from antiphon.audio.framing import Pcm16
from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.protocols.realtime.client_events import ClientEvents, SessionLimits
from antiphon.protocols.realtime.effects import CallView, Effect, Post, Steps
from antiphon.protocols.realtime.frames import Frames, Send, event_id, session_patch
from antiphon.protocols.realtime.ids import Ids
from antiphon.protocols.realtime.input_audio_buffer import InputAudioBuffer
from antiphon.protocols.realtime.items import Items
from antiphon.protocols.realtime.schema import RealtimeError
from antiphon.protocols.realtime.server_events import ServerEvents
from antiphon.protocols.realtime.session_config import SessionConfig


class RealtimeCodec:
    """One session, in the dialect of its client."""

    def __init__(
        self,
        session: SessionConfig,
        ids: Ids,
        *,
        dialect: str = "auto",
        limits: SessionLimits | None = None,
        tracks: bool = False,
    ) -> None:
        """`dialect`: `ga`, `beta` or `auto`. `tracks`: audio goes by tracks of WebRTC, beside the events."""
        limits = limits or SessionLimits()
        self.session = session
        self._ids = ids
        self._frames = Frames(ids, dialect)
        emit = self._frames.emit
        items = Items(limits.max_kept_audio_bytes, limits.max_session_bytes)
        self._buffer = InputAudioBuffer(session, ids, items, emit, kept_ms=limits.kept_ms)
        self._told = ServerEvents(session, ids, items, self._buffer, emit, tells_audio=not tracks)
        self._client = ClientEvents(self._told, limits, tracks=tracks)

    @property
    def faults(self) -> int:
        """Errors that the client was told of."""
        return self._told.faults

    @property
    def audible(self) -> str:
        """The response whose audio may still be on its way."""
        return self._told.audible

    # -- the client -------------------------------------------------------------------------------

    def begin(self, pinned: Iterable[tuple[dict[str, Any], str]], view: CallView) -> Steps:
        """`session.created`, after what the handshake asked of the session: partial objects and their dialects."""
        problem: RealtimeError | None = None
        for session, dialect in pinned:
            try:
                yield from self._client.apply(session_patch(session, dialect), view)
            except RealtimeError as error:
                problem = error
        self._frames.emit("session.created", session=self.session.shown())
        if self._frames.beta is not None:
            conversation = {"id": self._ids.conversation, "object": "realtime.conversation"}
            self._frames.emit("conversation.created", conversation=conversation)
        if problem is not None:
            self._told.error(problem)
        yield from self._frames.take()

    def receive(self, frame: str | bytes, view: CallView) -> Steps:
        """One frame of the client. Never raises for what is in it.

        Each effect is to be carried out before the next is asked for, and its answer sent in.
        """
        try:
            steps = self._client.obey(self._frames.decode(frame), view)
            yield from self._in_order(steps)
        except RealtimeError as error:
            self._told.error(error, event_id(frame))
        finally:
            self._told.cause = None
        yield from self._frames.take()

    def _in_order(self, steps: Steps) -> Steps:
        """What was to be sent before an effect goes before it."""
        answer: Any = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration:
                return
            yield from self._frames.take()
            answer = yield effect

    def hear(self, pcm: Pcm16, rate_hz: int, view: CallView) -> None:
        """The call is about to hear this, which came by a track of WebRTC."""
        self._buffer.received(pcm, rate_hz, view)

    # -- the call ---------------------------------------------------------------------------------

    def notice(self, action: act.Action, view: CallView) -> list[Effect]:
        """What the client is told of it."""
        self._told.notice(action, view)
        unwanted, self._told.unwanted = self._told.unwanted, []
        return [*self._frames.take(), *(Post(ev.DeleteItem(item)) for item in unwanted)]

    def voice(self, pcm: Pcm16) -> list[Send]:
        """A piece of the agent's voice, at `audio_formats.VOICE_RATE_HZ`."""
        self._told.audio(pcm)
        return self._frames.take()

    def error(self, error: RealtimeError) -> list[Send]:
        """Something that no event of the client caused."""
        self._told.error(error)
        return self._frames.take()

    def refusal(self, error: RealtimeError) -> list[Send]:
        """Instead of a session."""
        self._frames.emit("error", error=error.body())
        return self._frames.take()

    def playback(self, kind: str, response_id: str) -> list[Send]:
        """The track of WebRTC has `started`, `stopped` or `cleared` this response."""
        self._frames.emit(f"output_audio_buffer.{kind}", response_id=response_id)
        return self._frames.take()

    def waiting(self) -> list[Send]:
        """What a response out of band has to tell."""
        return self._frames.take()
