"""What the client's events do: each is checked against what there is, and becomes effects.

Events are obeyed in the order in which they came, one at a time. What is wrong with one is raised as RealtimeError, and
the session lives on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from antiphon.core import events as ev
from antiphon.core.history import Item
from antiphon.protocols.realtime import audio_formats as formats
from antiphon.protocols.realtime import items as shown
from antiphon.protocols.realtime import responses, schema
from antiphon.protocols.realtime.effects import (
    AwaitRoom,
    Breathe,
    CallView,
    CancelOutOfBand,
    ClearPlayback,
    Denoise,
    FlushAudio,
    Hear,
    Post,
    RespondOutOfBand,
    Steps,
    ToBase64,
    TranscribeSpeech,
    UseAgent,
)
from antiphon.protocols.realtime.schema import MAX_EVENT_ID_CHARS, RealtimeError
from antiphon.protocols.realtime.server_events import ServerEvents
from antiphon.protocols.realtime.session_config import agent_params, policy_of


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may send and keep."""

    max_append_bytes: int = 15 << 20
    max_kept_audio_bytes: int = 16 << 20
    max_session_bytes: int = 16 << 20
    kept_ms: int = 90_000
    """Uncommitted audio."""
    strict_truncate: bool = False
    """Truncating beyond an item's audio is an error, not clamped."""


class ClientEvents:
    """The client's side of one session. `obey` every event."""

    def __init__(self, told: ServerEvents, limits: SessionLimits, *, tracks: bool) -> None:
        """`told`: what the client is told. `tracks`: audio goes by tracks of WebRTC, beside the events."""
        self._told = told
        self._limits = limits
        self._tracks = tracks
        self._session, self._items, self._ids = told.session, told.items, told.ids
        self._buffer, self._emit = told.buffer, told.emit
        self._created = 0

    def obey(self, event: dict[str, Any], view: CallView) -> Steps:
        """Raises RealtimeError."""
        cause = event.get("event_id")
        if cause is not None and (not isinstance(cause, str) or len(cause) > MAX_EVENT_ID_CHARS):
            raise RealtimeError(
                f"event_id: a text of at most {MAX_EVENT_ID_CHARS} characters", param="event_id"
            )
        self._told.cause = cause
        return _HANDLERS[event["type"]](self, event, view)

    # -- the session ------------------------------------------------------------------------------

    def apply(self, patch: Any, view: CallView) -> Steps:
        """A partial session object. Raises RealtimeError, and has then changed nothing."""
        session = self._session
        listened = session.turn_detection is not None
        session.update(patch, spoke=self._told.spoke, check=self._items.check_session)
        if listened and session.turn_detection is None and self._buffer.open:
            # What was being said is a turn of its own; from now on the client says when.
            yield from self._commit_now(view)
        self._buffer.use_format(session.input_format)
        yield Denoise(session.noise_level)
        yield UseAgent(agent_params(session))
        yield Post(ev.Configure(policy_of(session, view.owner_policy)))

    def _session_update(self, event: dict[str, Any], view: CallView) -> Steps:
        yield from self.apply(schema.needed(event, "session"), view)
        self._emit("session.updated", session=self._session.shown())

    def _clear_output(self, event: dict[str, Any], view: CallView) -> Steps:
        """Stops the response as well, should it still be in the making: nothing else could come of it."""
        if not self._tracks:
            raise RealtimeError(
                "output_audio_buffer.clear is for WebRTC; stop your own playback and send conversation.item.truncate",
                "invalid_event",
                "type",
            )
        if view.live_reply is not None:
            yield Post(ev.RequestCancel(view.live_reply[0]))
        yield ClearPlayback()

    # -- audio ------------------------------------------------------------------------------------

    def _append(self, event: dict[str, Any], view: CallView) -> Steps:
        text = schema.text(event, "audio")
        limit = self._limits.max_append_bytes
        if len(text) > limit * 4 // 3 + 4:
            raise RealtimeError(
                f"audio: more than {limit >> 20} MiB in one event; send less at a time",
                param="audio",
            )
        data = yield from _decoded(text)
        for pcm, rate_hz in self._buffer.decode(data):
            yield AwaitRoom()
            self._buffer.received(pcm, rate_hz, view)
            yield Hear(pcm, rate_hz)
        self._buffer.check_room(view)

    def _commit(self, event: dict[str, Any], view: CallView) -> Steps:
        waiting_ms = self._buffer.waiting_ms
        if waiting_ms >= schema.MIN_COMMIT_MS:
            yield from self._commit_now(view)
        elif self._session.turn_detection is None or self._buffer.open:
            raise RealtimeError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{schema.MIN_COMMIT_MS}ms of audio, but buffer only has {max(waiting_ms, 0):.2f}ms of audio.",
                "input_audio_buffer_commit_empty",
            )
        # Else speech detection was faster than the client: not worth an error that ends some clients' sessions.

    def _commit_now(self, view: CallView) -> Steps:
        if self._session.turn_detection is None:
            yield FlushAudio()
        end_ms = view.heard_ms
        self._buffer.begin_commit(end_ms, view)
        try:
            yield Post(ev.CommitInput(end_ms, reply=False))
        finally:
            self._buffer.end_commit()
        self._buffer.taken()

    def _clear(self, event: dict[str, Any], view: CallView) -> Steps:
        self._buffer.begin_clear()
        try:
            yield Post(ev.ClearInput(view.heard_ms))
        finally:
            self._buffer.end_clear()
        self._buffer.cleared()

    # -- items ------------------------------------------------------------------------------------

    def _item_create(self, event: dict[str, Any], view: CallView) -> Steps:
        raw = schema.needed(event, "item")
        item_id = self._item_id(raw, view)
        previous = event.get("previous_item_id")
        after = self._place(previous, view)
        found = shown.offered(raw, item_id, self._ids.core(item_id))
        self._items.check_room(found.shown, "item")
        if found.item.role == "tool_result" and not self._items.knows_call(found.item.call_id):
            raise RealtimeError(
                f"there is no function call {found.item.call_id[:80]!r} in the conversation",
                "invalid_tool_call_id",
                "item.call_id",
            )
        data, heard = b"", None
        if found.speech:
            data = yield from _decoded(*found.speech)
            heard = yield from self._heard(found, data)
        core_id = found.item.id
        self._check_free(item_id, core_id, view)
        self._told.offer(core_id, found.shown, previous)
        yield Post(ev.AddItem(found.item, after))
        self._told.drop_offer(core_id)
        if data and item_id in self._items:
            self._items.keep_audio(item_id, self._session.input_format, data)
            self._tell_heard(item_id, heard)

    def _heard(self, found: shown.Offered, data: bytes) -> Steps:
        """TranscribeSpeech the speech in an item, and put its words into it; None: it could not be done."""
        text: str | None = yield TranscribeSpeech(data, self._session.input_format)
        if text is not None:
            found.add_words(text)
        return text

    def _tell_heard(self, item_id: str, heard: str | None) -> None:
        if heard is None:
            self._buffer.transcription_failed(item_id, "the speech could not be transcribed")
        elif self._session.transcribes:
            self._buffer.transcription_done(item_id, heard, self._items.audio_s(item_id))

    def _item_id(self, raw: Any, view: CallView) -> str:
        given = raw.get("id") if isinstance(raw, Mapping) else None
        if given is None:
            self._created += 1
            return self._ids.item(f"c{self._created}")
        if not isinstance(given, str) or not given or len(given) > MAX_EVENT_ID_CHARS:
            raise RealtimeError("item.id: a text of 1 to 512 characters", param="item.id")
        self._check_free(given, self._ids.core(given), view)
        return given

    def _check_free(self, item_id: str, core_id: str, view: CallView) -> None:
        if item_id in self._items or view.is_taken(core_id):
            raise RealtimeError(
                f"an item with the id {item_id[:80]!r} exists already",
                "item_create_duplicate_item_id",
                "item.id",
            )
        if len(self._items) >= shown.MAX_ITEMS:
            raise RealtimeError(f"the conversation holds {shown.MAX_ITEMS} items; delete some")

    def _place(self, previous: Any, view: CallView) -> str | None:
        """Where in the core's history: after the nearest item before it that the core has."""
        if previous is None or previous == self._items.last:
            return None
        if previous == "root":
            return "root"
        if not isinstance(previous, str) or previous not in self._items:
            raise RealtimeError(
                f"there is no item {str(previous)[:80]!r} to insert after",
                "item_create_invalid_previous_item_id",
                "previous_item_id",
            )
        known = (self._ids.core(item_id) for item_id in self._items.before(previous))
        return next(
            (core_id for core_id in known if view.history.find(core_id) is not None), "root"
        )

    def _known(self, event: dict[str, Any], verb: str) -> str:
        item_id = schema.text(event, "item_id")
        if item_id not in self._items:
            raise RealtimeError(
                f"there is no item {item_id[:80]!r} to {verb}",
                f"item_{verb}_invalid_item_id",
                "item_id",
            )
        return item_id

    def _item_retrieve(self, event: dict[str, Any], view: CallView) -> Steps:
        item, clip = self._items.copied(self._known(event, "retrieve"))
        if clip is not None:
            audio = yield ToBase64(bytes(clip.data), clip.kind, self._session.input_format)
            for part in item.get("content", ()):
                if part["type"] in ("input_audio", "output_audio"):
                    part["audio"] = audio
        self._emit("conversation.item.retrieved", item=item)

    def _item_delete(self, event: dict[str, Any], view: CallView) -> Steps:
        item_id = self._known(event, "delete")
        core_id = self._ids.core(item_id)
        live = view.live_reply
        if (live is not None and live[1] == core_id) or view.history.find(core_id) is not None:
            yield Post(ev.DeleteItem(core_id))
        if item_id in self._items:  # the core does not have it, or not yet
            self._told.remove_shown(item_id)

    def _item_truncate(self, event: dict[str, Any], view: CallView) -> Steps:
        item_id = self._known(event, "truncate")
        heard_ms = self._truncation_ms(event, item_id)
        faults, self._told.truncated_ms = self._told.faults, None
        yield Post(ev.TruncateItem(self._ids.core(item_id), heard_ms))
        if self._told.faults > faults:
            return
        cut_ms = self._told.truncated_ms
        heard_ms = heard_ms if cut_ms is None else cut_ms
        self._items.cut_audio(item_id, heard_ms)
        self._emit(
            "conversation.item.truncated",
            item_id=item_id,
            content_index=0,
            audio_end_ms=heard_ms,
        )

    def _truncation_ms(self, event: dict[str, Any], item_id: str) -> int:
        """Where the item is to be cut: within its audio. Raises RealtimeError."""
        if schema.whole(event, "content_index") != 0:
            raise RealtimeError("content_index: the audio is part 0", param="content_index")
        heard_ms = schema.whole(event, "audio_end_ms")
        length_ms = self._told.spoken_ms(item_id)
        if heard_ms < 0:
            raise RealtimeError("audio_end_ms: not negative", param="audio_end_ms")
        if length_ms is None:
            raise RealtimeError(
                "Only model output audio messages can be truncated", param="item_id"
            )
        if heard_ms > length_ms and self._limits.strict_truncate:
            raise RealtimeError(
                f"Audio content of {length_ms}ms is already shorter than {heard_ms}ms",
                param="audio_end_ms",
            )
        return min(heard_ms, length_ms)

    # -- responses --------------------------------------------------------------------------------

    def _response_create(self, event: dict[str, Any], view: CallView) -> Steps:
        params = event.get("response")
        params = {} if params is None else params
        if not isinstance(params, Mapping):
            raise RealtimeError("response must be an object", "invalid_type", "response")
        self._items.check_room(params, "response")
        responses.check_params(params)
        if self._session.kind == "transcription":
            raise RealtimeError(
                "a transcription session creates no responses", "invalid_event", "type"
            )
        given = params.get("input")
        told = None if given is None else (yield from self._input(given, view))
        options = responses.options_of(params, view.owner_voice, view.voices)
        if params.get("conversation") == "none":
            history = view.history.snapshot() if told is None else told
            terms = responses.terms_of(params, self._session, None)
            response = self._told.new_response(terms, out_of_band=True)
            problem: RealtimeError | None = yield RespondOutOfBand(response, history, options)
            if problem is not None:
                raise problem
            return
        self._check_idle()
        if told is not None:
            options["input"] = told
        yield from self._ask(
            responses.terms_of(params, self._session, self._ids.conversation), options
        )

    def _check_idle(self) -> None:
        active = self._told.active
        if active is not None:
            raise RealtimeError(
                f"Conversation already has an active response in progress: {active.id}. "
                "Wait until the response is finished before creating a new one.",
                "conversation_already_has_active_response",
            )

    def _ask(self, terms: responses.Terms, options: dict[str, Any]) -> Steps:
        """The core for a reply."""
        response = self._told.new_response(terms)
        faults = self._told.faults
        self._told.ask(response)
        yield Post(ev.RequestReply({**options, "response": response.id}, terms.modality == "audio"))
        if self._told.faults > faults and not response.created:
            self._told.forget(response)
        else:
            response.create()

    def _input(self, given: list[dict[str, Any]], view: CallView) -> Steps:
        """The context that a response is to have instead of the conversation."""
        told: list[Item] = []
        for number, raw in enumerate(given):
            at = f"response.input[{number}]"
            if raw.get("type") != "item_reference":
                found = shown.offered(raw, f"input_{number}", f".input_{number}", at)
                if found.speech:
                    yield from self._heard(found, (yield from _decoded(*found.speech)))
                told.append(found.item)
                continue
            item_id = schema.text(raw, "id")
            if item_id not in self._items:
                raise RealtimeError(f"{at}.id: there is no item {item_id[:80]!r}", param=f"{at}.id")
            item = view.history.find(self._ids.core(item_id))
            if item is not None:
                told.append(item)
        return tuple(told)

    def _response_cancel(self, event: dict[str, Any], view: CallView) -> Steps:
        wanted, active = event.get("response_id"), self._told.active
        if isinstance(wanted, str) and (yield CancelOutOfBand(wanted)):
            return
        if active is None or wanted not in (None, active.id):
            raise RealtimeError(
                "Cancellation failed: no active response found", "response_cancel_not_active"
            )
        yield Post(ev.RequestCancel(active.reply))
        self._told.cancel_asked()


def _decoded(*texts: str) -> Steps:
    """Base64 of any length, in pieces -> bytes. Raises RealtimeError."""
    pieces: list[bytes] = []
    for piece in chain.from_iterable(map(formats.base64_pieces, texts)):
        pieces.append(piece)
        if len(pieces) > 1:
            yield Breathe()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


Handler = Callable[[ClientEvents, dict[str, Any], CallView], Steps]
_HANDLERS: dict[str, Handler] = {
    "session.update": ClientEvents._session_update,
    "input_audio_buffer.append": ClientEvents._append,
    "input_audio_buffer.commit": ClientEvents._commit,
    "input_audio_buffer.clear": ClientEvents._clear,
    "conversation.item.create": ClientEvents._item_create,
    "conversation.item.retrieve": ClientEvents._item_retrieve,
    "conversation.item.truncate": ClientEvents._item_truncate,
    "conversation.item.delete": ClientEvents._item_delete,
    "response.create": ClientEvents._response_create,
    "response.cancel": ClientEvents._response_cancel,
    "output_audio_buffer.clear": ClientEvents._clear_output,
}
