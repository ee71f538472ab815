"""What the client's events do: each is checked against what there is, and becomes commands of the session.

Events are obeyed in the order in which they came, one at a time; only audio that must be transcribed first, or that
comes faster than it can be heard, makes the next one wait. Whatever is wrong with an event is told, and the session
lives on. Knows no transport.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from antiphon.core import events as ev
from antiphon.core.history import Item
from antiphon.core.policy import Policy
from antiphon.errors import AntiphonError, ConfigError
from antiphon.models.pool import ModelSet, Work
from antiphon.models.ports import STT_RATE_HZ, Kind, LlmRequest
from antiphon.server.realtime import wishes
from antiphon.server.realtime.asides import Asides
from antiphon.server.realtime.intake import Intake
from antiphon.session.prompting import messages
from antiphon.session.runners import Agent
from antiphon.session.session import Session as Call
from antiphon.wire.realtime import audio as formats
from antiphon.wire.realtime import items as shown
from antiphon.wire.realtime import shapes
from antiphon.wire.realtime.codec import Codec, event_id
from antiphon.wire.realtime.encoder import Encoder
from antiphon.wire.realtime.errors import MAX_EVENT_ID_CHARS, PeerError
from antiphon.wire.realtime.session import Session, policy_of

log = logging.getLogger(__name__)

_TRANSCRIBE_S = 20.0
Handler = Callable[[dict[str, Any]], Awaitable[None] | None]


class Conductor:
    """Of one session. `take` every frame of the client."""

    def __init__(
        self,
        call: Call,
        models: ModelSet,
        encoder: Encoder,
        intake: Intake,
        codec: Codec,
        owner: tuple[Policy, Agent],
    ) -> None:
        """`owner`: policy and agent as the settings have them."""
        self.asides = Asides(call.call_id, models)
        self.strict_truncate = False
        self.clear_line: Callable[[], None] | None = None
        """Where the voice goes a way of its own: forget what has not been played."""
        self._call = call
        self._intake = intake
        self._models = models
        self._encoder = encoder
        self._session: Session = encoder.session
        self._codec = codec
        self._emit = encoder.emit
        self._policy, self._agent = owner
        self._created = 0
        encoder.runs_here = call.runs
        encoder.unwanted = lambda core_id: call.post(ev.DeleteItem(core_id))
        self._handlers: dict[str, Handler] = {
            "session.update": self._session_update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._item_create,
            "conversation.item.retrieve": self._item_retrieve,
            "conversation.item.truncate": self._item_truncate,
            "conversation.item.delete": self._item_delete,
            "response.create": self._response_create,
            "response.cancel": self._response_cancel,
            "output_audio_buffer.clear": self._clear_output,
        }

    async def take(self, frame: str | bytes) -> None:
        """One frame of the client. Never raises for what is in it."""
        try:
            if isinstance(frame, bytes):
                raise PeerError("events are JSON in text frames, not binary ones", "invalid_event")
            await self._obey(self._codec.decode(frame))
        except PeerError as error:
            cause = event_id(frame) if isinstance(frame, str) else None
            self._encoder.error(error, cause)
        finally:
            self._encoder.cause = None

    async def _obey(self, event: dict[str, Any]) -> None:
        cause = event.get("event_id")
        if cause is not None and (not isinstance(cause, str) or len(cause) > MAX_EVENT_ID_CHARS):
            raise PeerError(
                f"event_id: a text of at most {MAX_EVENT_ID_CHARS} characters", param="event_id"
            )
        self._encoder.cause = cause
        done = self._handlers[event["type"]](event)
        if done is not None:
            await done

    # -- the session ------------------------------------------------------------------------------

    def apply(self, patch: Any) -> None:
        """A partial session object. Raises PeerError, and has then changed nothing."""
        listened = self._session.turn_detection is not None
        self._session.update(patch, spoke=self._encoder.spoke)
        if listened and self._session.turn_detection is None and self._encoder.hearing.open:
            self._commit_now()  # what was being said is a turn of its own; from now on the client says when
        self._intake.audio.kind = self._session.input_format
        try:
            self._call.denoise(self._session.noise_level)
        except ConfigError as error:  # heard as it is: clients that ask for it can do without
            log.info("call %s: %s", self._call.call_id, error)
        self._call.agent = wishes.agent_of(self._session, self._agent, self._voices())
        self._call.post(ev.Configure(policy_of(self._session, self._policy)))

    def _session_update(self, event: dict[str, Any]) -> None:
        self.apply(shapes.needed(event, "session"))
        self._emit("session.updated", session=self._session.shown())

    def _voices(self) -> tuple[str, ...]:
        return self._models.info(Kind.TTS).voices

    def _clear_output(self, event: dict[str, Any]) -> None:
        """Stops the response as well, should it still be in the making: nothing else could come of it."""
        if self.clear_line is not None:
            live = self._call.view.reply
            if live is not None and live.committed:
                self._call.post(ev.RequestCancel(live.id))
            self.clear_line()
            return
        raise PeerError(
            "output_audio_buffer.clear is for WebRTC; stop your own playback and send conversation.item.truncate",
            "invalid_event",
            "type",
        )

    # -- audio ------------------------------------------------------------------------------------

    async def _append(self, event: dict[str, Any]) -> None:
        await self._intake.append(shapes.text(event, "audio"))

    def _commit(self, event: dict[str, Any]) -> None:
        waiting_ms = self._intake.received_ms - self._encoder.hearing.taken_ms
        if waiting_ms >= shapes.MIN_COMMIT_MS:
            self._commit_now()
        elif self._session.turn_detection is None or self._encoder.hearing.open:
            raise PeerError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{shapes.MIN_COMMIT_MS}ms of audio, but buffer only has {max(waiting_ms, 0):.2f}ms of audio.",
                "input_audio_buffer_commit_empty",
            )
        # Else speech detection was faster than the client: not worth an error that ends some clients' sessions.

    def _commit_now(self) -> None:
        if self._session.turn_detection is None:
            self._call.flush_audio()
        end_ms = self._call.heard_ms
        self._encoder.hearing.begin_commit(end_ms)
        try:
            self._call.post(ev.CommitInput(end_ms, reply=False))
        finally:
            self._encoder.hearing.end_commit()
        self._intake.taken()

    def _clear(self, event: dict[str, Any]) -> None:
        self._encoder.hearing.begin_clear()
        try:
            self._call.post(ev.ClearInput(self._call.heard_ms))
        finally:
            self._encoder.hearing.end_clear()
        self._intake.cleared()

    # -- items ------------------------------------------------------------------------------------

    async def _item_create(self, event: dict[str, Any]) -> None:
        raw = shapes.needed(event, "item")
        item_id = self._item_id(raw)
        core_id = self._encoder.names.core(item_id)
        after = self._place(event.get("previous_item_id"))
        found = shown.offered(raw, item_id, core_id)
        if found.item.role == "tool_result" and not self._encoder.items.knows_call(
            found.item.call_id
        ):
            raise PeerError(
                f"there is no function call {found.item.call_id[:80]!r} in the conversation",
                "invalid_tool_call_id",
                "item.call_id",
            )
        heard = await self._heard(found) if found.audio else None
        self._check_free(item_id, core_id)
        previous = event.get("previous_item_id")
        self._encoder.offer(core_id, found.shown, previous)
        self._call.post(ev.AddItem(found.item, after))
        self._encoder.drop_offer(core_id)
        if found.audio and item_id in self._encoder.items:
            self._encoder.items.keep_audio(item_id, self._session.input_format, found.audio)
            if heard is None:
                self._encoder.hearing.transcription_failed(
                    item_id, "the speech could not be transcribed"
                )
            elif self._session.transcribes:
                length_s = self._encoder.items.audio_s(item_id)
                self._encoder.hearing.transcription_done(item_id, heard, length_s)

    def _item_id(self, raw: Any) -> str:
        given = raw.get("id") if isinstance(raw, Mapping) else None
        if given is None:
            self._created += 1
            return self._encoder.names.item(f"c{self._created}")
        if not isinstance(given, str) or not given or len(given) > MAX_EVENT_ID_CHARS:
            raise PeerError("item.id: a text of 1 to 512 characters", param="item.id")
        self._check_free(given, self._encoder.names.core(given))
        return given

    def _check_free(self, item_id: str, core_id: str) -> None:
        if item_id in self._encoder.items or self._call.view.is_taken(core_id):
            raise PeerError(
                f"an item with the id {item_id[:80]!r} exists already",
                "item_create_duplicate_item_id",
                "item.id",
            )
        if len(self._encoder.items) >= shown.MAX_ITEMS:
            raise PeerError(f"the conversation holds {shown.MAX_ITEMS} items; delete some")

    def _place(self, previous: Any) -> str | None:
        """Where in the core's history: after the nearest item before it that the core has."""
        items, names = self._encoder.items, self._encoder.names
        if previous is None or previous == items.last:
            return None
        if previous == "root":
            return "root"
        if not isinstance(previous, str) or previous not in items:
            raise PeerError(
                f"there is no item {str(previous)[:80]!r} to insert after",
                "item_create_invalid_previous_item_id",
                "previous_item_id",
            )
        history = self._call.view.history
        known = (names.core(item_id) for item_id in items.before(previous))
        return next((core_id for core_id in known if history.find(core_id) is not None), "root")

    async def _heard(self, found: shown.Offered) -> str | None:
        """Transcribe the speech in an item, and put its words into it; None: it could not be done."""
        pcm = formats.decode(self._session.input_format, found.audio, STT_RATE_HZ)
        language = self._call.agent.language or None
        work = Work(self._call.call_id, int(asyncio.get_running_loop().time() * 1000))
        try:
            async with asyncio.timeout(_TRANSCRIBE_S):
                heard = await self._models.transcribe(
                    pcm, language=language, partial=False, work=work
                )
        except (AntiphonError, TimeoutError):
            return None
        text = heard.text.strip()
        found.add_words(text)
        return text

    def _known(self, event: dict[str, Any], verb: str) -> str:
        item_id = shapes.text(event, "item_id")
        if item_id not in self._encoder.items:
            raise PeerError(
                f"there is no item {item_id[:80]!r} to {verb}",
                f"item_{verb}_invalid_item_id",
                "item_id",
            )
        return item_id

    def _item_retrieve(self, event: dict[str, Any]) -> None:
        item_id = self._known(event, "retrieve")
        item = self._encoder.items.with_audio(item_id, self._session.input_format)
        self._emit("conversation.item.retrieved", item=item)

    def _item_delete(self, event: dict[str, Any]) -> None:
        item_id = self._known(event, "delete")
        core_id = self._encoder.names.core(item_id)
        conversation = self._call.view
        live = conversation.reply
        if (
            live is not None and live.committed and live.item == core_id
        ) or conversation.history.find(core_id) is not None:
            self._call.post(ev.DeleteItem(core_id))
        if item_id in self._encoder.items:  # the core does not have it, or not yet
            self._encoder.remove_shown(item_id)

    def _item_truncate(self, event: dict[str, Any]) -> None:
        item_id = self._known(event, "truncate")
        if shapes.whole(event, "content_index") != 0:
            raise PeerError("content_index: the audio is part 0", param="content_index")
        heard_ms = shapes.whole(event, "audio_end_ms")
        length_ms = self._encoder.spoken_ms(item_id)
        if heard_ms < 0:
            raise PeerError("audio_end_ms: not negative", param="audio_end_ms")
        if length_ms is None:
            raise PeerError("Only model output audio messages can be truncated", param="item_id")
        if heard_ms > length_ms and self.strict_truncate:
            raise PeerError(
                f"Audio content of {length_ms}ms is already shorter than {heard_ms}ms",
                param="audio_end_ms",
            )
        heard_ms = min(heard_ms, length_ms)
        faults, self._encoder.truncated_ms = self._encoder.faults, None
        self._call.post(ev.TruncateItem(self._encoder.names.core(item_id), heard_ms))
        if self._encoder.faults > faults:
            return
        cut_ms = self._encoder.truncated_ms
        heard_ms = heard_ms if cut_ms is None else cut_ms
        self._encoder.items.cut_audio(item_id, heard_ms)
        self._emit(
            "conversation.item.truncated",
            item_id=item_id,
            content_index=0,
            audio_end_ms=heard_ms,
        )

    # -- responses --------------------------------------------------------------------------------

    async def _response_create(self, event: dict[str, Any]) -> None:
        params = event.get("response")
        params = {} if params is None else params
        if not isinstance(params, Mapping):
            raise PeerError("response must be an object", "invalid_type", "response")
        wishes.check_params(params)
        if self._session.kind == "transcription":
            raise PeerError("a transcription session creates no responses", "invalid_event", "type")
        given = params.get("input")
        told = None if given is None else await self._input(given)
        options = wishes.options_of(params, self._agent.voice, self._voices())
        if params.get("conversation") == "none":
            self._speak_aside(params, options, told)
            return
        active = self._encoder.active
        if active is not None:
            raise PeerError(
                f"Conversation already has an active response in progress: {active.id}. "
                "Wait until the response is finished before creating a new one.",
                "conversation_already_has_active_response",
            )
        if told is not None:
            options["input"] = told
        terms = wishes.terms_of(params, self._session, self._encoder.names.conversation)
        response = self._encoder.new_response(terms)
        faults = self._encoder.faults
        self._encoder.ask(response)
        self._call.post(
            ev.RequestReply({**options, "response": response.id}, terms.modality == "audio")
        )
        if self._encoder.faults > faults and not response.created:
            self._encoder.forget(response)
        else:
            response.create()

    def _speak_aside(
        self, params: Mapping[str, Any], options: dict[str, Any], told: tuple[Item, ...] | None
    ) -> None:
        history = self._call.view.history.snapshot() if told is None else told
        agent = self._call.agent
        request = LlmRequest(
            messages=messages(options.get("instructions", agent.prompt), history),
            max_tokens=options.get("max_tokens", agent.max_tokens),
            temperature=options.get("temperature", agent.temperature),
            tools=options.get("tools", agent.tools),
            tool_choice=options.get("tool_choice", agent.tool_choice),
        )
        terms = wishes.terms_of(params, self._session, None)
        response = self._encoder.new_response(terms, out_of_band=True)
        self.asides.start(
            response, request, replace(agent, voice=options.get("voice", agent.voice))
        )

    async def _input(self, given: list[dict[str, Any]]) -> tuple[Item, ...]:
        """The context that a response is to have instead of the conversation."""
        history, names = self._call.view.history, self._encoder.names
        told: list[Item] = []
        for number, raw in enumerate(given):
            at = f"response.input[{number}]"
            if raw.get("type") != "item_reference":
                found = shown.offered(raw, f"input_{number}", f".input_{number}", at)
                if found.audio:
                    await self._heard(found)
                told.append(found.item)
                continue
            item_id = shapes.text(raw, "id")
            if item_id not in self._encoder.items:
                raise PeerError(f"{at}.id: there is no item {item_id[:80]!r}", param=f"{at}.id")
            item = history.find(names.core(item_id))
            if item is not None:
                told.append(item)
        return tuple(told)

    def _response_cancel(self, event: dict[str, Any]) -> None:
        wanted, active = event.get("response_id"), self._encoder.active
        if isinstance(wanted, str) and wanted in self.asides:
            self.asides.cancel(wanted)
        elif active is None or wanted not in (None, active.id):
            raise PeerError(
                "Cancellation failed: no active response found", "response_cancel_not_active"
            )
        else:
            self._call.post(ev.RequestCancel(active.reply))
            self._encoder.cancel_asked()
