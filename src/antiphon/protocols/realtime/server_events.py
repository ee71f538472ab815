"""The core's actions as server events, in the documented order.

Where the core is slower than the protocol (a committed turn joins the history once its words are known) the client is
told at once; where it knows more (noise that turned out to be no turn) the client is told the nearest thing there is.
`client_events.py` says beforehand what is about to be done.
"""

from __future__ import annotations

from typing import Any

from antiphon.audio.framing import Pcm16
from antiphon.core import actions as act
from antiphon.protocols.realtime import audio_formats as formats
from antiphon.protocols.realtime import responses
from antiphon.protocols.realtime.effects import CallView
from antiphon.protocols.realtime.frames import Emit, show_item
from antiphon.protocols.realtime.ids import Ids
from antiphon.protocols.realtime.input_audio_buffer import InputAudioBuffer
from antiphon.protocols.realtime.items import Items
from antiphon.protocols.realtime.responses import Response, Terms, TokenUsage
from antiphon.protocols.realtime.schema import RealtimeError
from antiphon.protocols.realtime.session_config import SessionConfig

_OF_A_REPLY = ("reply_failed", "reply_timeout", "speech_failed", "invalid_request")
"""Faults that `response.done` tells; several clients take any `error` for the end of the session."""
_COMMANDS = (
    "conversation_already_has_active_response",
    "response_cancel_not_active",
    "input_audio_buffer_commit_empty",
    "item_create_duplicate_item_id",
    "item_create_invalid_previous_item_id",
    "item_delete_invalid_item_id",
    "item_truncate_invalid_item_id",
)


class ServerEvents:
    """What the client of one session is told."""

    def __init__(
        self,
        session: SessionConfig,
        ids: Ids,
        items: Items,
        buffer: InputAudioBuffer,
        emit: Emit,
        *,
        tells_audio: bool,
    ) -> None:
        """`tells_audio`: the agent's voice is in events; False: it goes beside them."""
        self.session = session
        self.items = items
        self.ids = ids
        self.cause: str | None = None
        """`event_id` of the client's event that is being obeyed."""
        self.faults = 0
        """Errors told since the session began."""
        self.tells_audio = tells_audio
        self.unwanted: list[str] = []
        """Items of the core that the client deleted before the core had them."""
        self.spoke = False
        """The client has been sent some of our voice."""
        self.truncated_ms: int | None = None
        """Where the core cut the item that was truncated last."""
        self.emit = emit
        self.buffer = buffer
        self._deleted: set[str] = set()
        self._asked: Response | None = None
        """Created for the client, not begun by the core."""
        self._live: Response | None = None
        """The response of the core's latest reply. It may be done and still be playing."""
        self._offered: dict[str, tuple[dict[str, Any], str | None]] = {}
        self._spoken_ms: dict[str, float] = {}
        self._responses = 0
        self._reply_item = ""
        self._declared: list[dict[str, Any]] = []
        """Functions of the client that the latest reply may call; calls of any other are run by us, and not shown."""

    # -- what `client_events` announces ------------------------------------------------------------

    @property
    def active(self) -> Response | None:
        """The response that is not done."""
        if self._asked is not None:
            return self._asked
        return self._live if self._live is not None and not self._live.done else None

    def new_response(self, terms: Terms, *, out_of_band: bool = False) -> Response:
        self._responses += 1
        name = self.ids.response(self._responses)
        if out_of_band:
            return Response(name, terms, self.emit, None)
        return Response(name, terms, self.emit, self.items, tells_audio=self.tells_audio)

    def ask(self, response: Response) -> None:
        """The core is about to be asked for this reply."""
        self._asked = response

    def forget(self, response: Response) -> None:
        """The core would not."""
        if self._asked is response:
            self._asked = None

    def cancel_asked(self) -> None:
        """What was asked for never began."""
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.close("cancelled", responses.cancelled("client_cancelled"), TokenUsage())

    def offer(self, core_id: str, item: dict[str, Any], after: str | None) -> None:
        """The core is about to be given this item."""
        self._offered[core_id] = (item, after)

    def spoken_ms(self, item_id: str) -> int | None:
        """How much audio of this assistant item was sent; None: it has none."""
        live = self._live
        if live is not None and live.item == item_id and not live.done:
            return int(_length_ms(live))
        found = self._spoken_ms.get(item_id)
        return None if found is None else int(found)

    def error(self, error: RealtimeError, event_id: str | None = None) -> None:
        self.faults += 1
        self.emit("error", error=error.body(event_id))

    # -- the agent's voice ------------------------------------------------------------------------

    def audio(self, pcm: Pcm16) -> None:
        live = self._live
        if live is not None and not live.done:
            self.spoke = True
            live.sound(live.item or self._reply_item, pcm)

    @property
    def audible(self) -> str:
        """The response whose audio may still be on its way."""
        return self._live.id if self._live is not None else ""

    # -- what the core says -----------------------------------------------------------------------

    def notice(self, action: act.Action, view: CallView) -> None:
        match action:
            case act.SpeechBegan() | act.SpeechEnded() | act.SpeechDropped() | act.SilencePassed():
                self.buffer.speech(action, view)
            case act.Transcript():
                self.buffer.caption(action)
            case act.TranscriptFailed(item, reason):
                self.buffer.caption_failed(item, reason, view)
            case act.ItemAdded(item, _):
                self._item_added(item.id)
            case act.ItemRemoved(item):
                self._item_removed(item)
            case act.ItemTruncated(item, heard_ms, heard, _):
                self.truncated_ms = heard_ms
                self._cut(item, heard)
            case act.ReplyBegan():
                self._reply_began(action)
            case act.ReplyWords(_, item, text):
                self._response(action.reply).say(self.ids.item(item), text)
            case act.ReplyCallWords(reply, item, call_id, name, text):
                if self._is_clients(name, view):
                    self._response(reply).write_call(self.ids.item(item), call_id, name, text)
            case act.ReplyCalls(reply, item, call):
                if self._is_clients(call.name, view):
                    self._response(reply).call(self.ids.item(item), call)
            case act.ReplyGenerated():
                self._reply_generated(action)
            case act.ReplyEnded():
                self._reply_ended(action)
            case act.Fault(code, message):
                self._fault(code, message)
            case act.Hangup():
                self.cancel_asked()

    # -- items --------------------------------------------------------------------------------------

    def _item_added(self, core_id: str) -> None:
        found = self._offered.pop(core_id, None)
        if found is not None:
            show_item(self.items, self.emit, *found)
        elif core_id in self._deleted:
            self._deleted.discard(core_id)
            self.unwanted.append(core_id)

    def _item_removed(self, core_id: str) -> None:
        name = self.ids.item(core_id)
        if name in self.items:
            self.items.remove(name)
            self.emit("conversation.item.deleted", item_id=name)

    def remove_shown(self, item_id: str) -> None:
        """Delete an item that the core does not have, or does not have yet."""
        self.items.remove(item_id)
        self._deleted.add(self.ids.core(item_id))
        self.emit("conversation.item.deleted", item_id=item_id)

    def drop_offer(self, core_id: str) -> None:
        self._offered.pop(core_id, None)

    def _cut(self, core_id: str, heard: str) -> None:
        name = self.ids.item(core_id)
        if name in self.items and not (self._live and self._live.item == name and self.active):
            self.items.cut(name, heard)

    # -- replies ------------------------------------------------------------------------------------

    def _is_clients(self, function: str, view: CallView) -> bool:
        declared = any(tool["name"] == function for tool in self._declared)
        return declared and not view.runs(function)

    def _response(self, reply: str) -> Response:
        assert self._live is not None
        assert self._live.reply == reply
        return self._live

    def terms(self, modality: str) -> Terms:
        """The terms of a response for which nothing was asked."""
        session = self.session
        return Terms(
            modality=modality,
            format=session.output_format,
            voice=session.voice,
            max_output_tokens=session["max_output_tokens"],
            conversation=self.ids.conversation,
            temperature=session["temperature"],
        )

    def _reply_began(self, began: act.ReplyBegan) -> None:
        asked = self._asked
        if asked is not None and began.options.get("response") == asked.id:
            self._asked, self._live = None, asked
        else:
            self._live = self.new_response(self.terms("audio" if began.speaks else "text"))
        self._live.reply = began.reply
        self._reply_item = self.ids.item(began.item)
        self._declared = began.options.get("declared", self.session["tools"])
        self._live.create()

    def _reply_generated(self, made: act.ReplyGenerated) -> None:
        response = self._response(made.reply)
        tokens = TokenUsage(made.input_tokens, made.output_tokens, made.cached_tokens)
        if made.finish == "length":
            self._close(response, "incomplete", responses.CUT, tokens)
        else:
            self._close(response, "completed", None, tokens)

    def _reply_ended(self, ended: act.ReplyEnded) -> None:
        response = self._response(ended.reply)
        tokens = TokenUsage(ended.input_tokens, ended.output_tokens, ended.cached_tokens)
        match ended.status:
            case "completed":
                self._close(response, "completed", None, tokens)
            case "failed":
                details = responses.failed(response.error_code, ended.reason)
                self._close(response, "failed", details, tokens)
            case "incomplete" if ended.reason == "length":
                self._close(response, "incomplete", responses.CUT, tokens)
            case _:
                self._close(response, "cancelled", responses.cancelled(ended.reason), tokens)
        name = self.ids.item(ended.item)
        if ended.unheard and name in self.items:
            self.items.cut(name, ended.heard)

    def _close(
        self, response: Response, status: str, details: dict[str, Any] | None, tokens: TokenUsage
    ) -> None:
        if response.done:
            return
        response.close(status, details, tokens)
        if response.item and response.terms.modality == "audio":
            self._spoken_ms[response.item] = _length_ms(response)

    def _fault(self, code: str, message: str) -> None:
        if code in _OF_A_REPLY:
            if self._live is not None:
                self._live.error_code = code
            return
        if code == "transcription_failed" and self.session.transcribes:
            return
        kind = "invalid_request_error" if code in _COMMANDS else "server_error"
        self.error(RealtimeError(message, code, kind=kind), self.cause)


def _length_ms(response: Response) -> float:
    return formats.duration_ms(response.terms.format, response.audio_bytes)
