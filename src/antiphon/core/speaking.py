"""The agent's side of a conversation: the one live reply, from its first token to the last word that is heard.

A reply may be preemptive: generated, cut into segments and half synthesised, with nothing shown or played before
`commit`. Knows the policy and the ledger, not the floor and not the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.core.actions import (
    Action,
    CancelReply,
    Generate,
    ReplyBegan,
    ReplyCallWords,
    ReplyGenerated,
    ReplyWords,
    Synthesize,
)
from antiphon.core.events import ReplyComplete
from antiphon.core.history import Item, ToolRequest
from antiphon.core.playout import PlayoutLedger
from antiphon.core.policy import Policy
from antiphon.core.text_segmenter import TextSegmenter
from antiphon.core.turn_record import TurnRecord


@dataclass(slots=True)
class Reply:
    id: str
    item: str
    kind: str
    record: TurnRecord
    cutter: TextSegmenter
    ledger: PlayoutLedger
    speaks: bool
    prompt: str = ""
    """The caller's words it answers."""
    text_end_probability: float | None = None
    """How likely those words end there."""
    options: Mapping[str, Any] = field(default_factory=dict)
    committed: bool = False
    text: str = ""
    text_done: bool = False
    finish: str = ""
    failed: str = ""
    tools: list[ToolRequest] = field(default_factory=list)
    """Function calls that may not run yet."""
    call_items: dict[str, str] = field(default_factory=dict)
    """Call id -> history item, of calls whose arguments are being written."""
    call_words: list[ReplyCallWords] = field(default_factory=list)
    """Arguments that may not be shown yet."""
    calls: int = 0
    """Function calls asked for so far."""
    waiting: deque[str] = field(default_factory=deque)
    """Clauses that have not been given to text to speech."""
    synthesising: int | None = None
    audible: bool = False
    announced: bool = False
    """`ReplyGenerated` has been sent."""
    progress_ms: int = 0
    """Clock time at which a model last gave something for it."""
    first_call_item: str = ""
    """The history item of its first function call; what it says stands before that."""

    @property
    def generated(self) -> bool:
        """Nothing more will come: neither text nor audio."""
        return (
            self.text_done and self.synthesising is None and (bool(self.failed) or not self.waiting)
        )

    def unsaid(self) -> str:
        """Words that were never given to text to speech. Only for a reply that is over: it empties the cutter."""
        return " ".join([*self.waiting, *self.cutter.flush()])

    def finished(self, now_ms: int) -> bool:
        return self.generated and self.ledger.position(now_ms) >= self.ledger.total_ms


class Speaker:
    """Owns the live reply. `emit` takes the actions it asks for; `is_taken`: an item of this id exists already."""

    def __init__(
        self, emit: Callable[[Action], None], is_taken: Callable[[str], bool] = lambda _: False
    ) -> None:
        self.reply: Reply | None = None
        self._emit = emit
        self._is_taken = is_taken
        self._count = 0

    # -- beginning ----------------------------------------------------------------------------------

    def begin(
        self,
        kind: str,
        policy: Policy,
        record: TurnRecord,
        *,
        speaks: bool | None = None,
        prompt: str = "",
        options: Mapping[str, Any] | None = None,
        streamed: bool = True,
    ) -> Reply:
        """A new reply, preemptive until `commit`. There must be no live one.

        `streamed`: its text comes token by token, so a short first segment saves time.
        """
        assert self.reply is None
        self._count += 1
        while self._is_taken(f"a{self._count}"):
            self._count += 1
        record.forget_reply()
        record.reply, record.kind = f"r{self._count}", kind
        self.reply = Reply(
            id=record.reply,
            item=f"a{self._count}",
            kind=kind,
            record=record,
            cutter=TextSegmenter(
                first_words=policy.first_segment_words if streamed else 0,
                max_chars=policy.max_segment_chars,
            ),
            ledger=PlayoutLedger(reports=policy.client_reports_played),
            speaks=policy.speak_replies if speaks is None else speaks,
            prompt=prompt,
            options=options or {},
        )
        return self.reply

    def generate(
        self, history: tuple[Item, ...], now_ms: int, *, score_text_end: bool = False
    ) -> None:
        reply = self.reply
        assert reply is not None
        reply.record.generate_ms = now_ms
        guess = not reply.committed
        self._emit(Generate(reply.id, history, reply.options, guess, score_text_end))

    def commit(self, now_ms: int, policy: Policy) -> None:
        """The reply is certain: show what there is of it and let it be heard."""
        reply = self.reply
        assert reply is not None
        reply.committed = True
        reply.record.committed_ms = now_ms
        self._emit(ReplyBegan(reply.id, reply.item, reply.options, reply.speaks))
        if reply.text:
            self._emit(ReplyWords(reply.id, reply.item, reply.text))
        self.pump(now_ms, policy)

    # -- making -------------------------------------------------------------------------------------

    def add_text(self, text: str, now_ms: int, policy: Policy) -> None:
        reply = self.reply
        assert reply is not None
        if reply.record.first_token_ms is None:
            reply.record.first_token_ms = now_ms
        reply.progress_ms = now_ms
        reply.text += text
        reply.record.characters += len(text)
        if reply.committed:
            self._emit(ReplyWords(reply.id, reply.item, text))
        if reply.speaks:
            reply.waiting.extend(reply.cutter.feed(text))
            self.pump(now_ms, policy)

    def end_text(self, now_ms: int, policy: Policy, done: ReplyComplete | None = None) -> None:
        """No more text will come."""
        reply = self.reply
        assert reply is not None
        reply.text_done = True
        reply.record.text_done_ms = reply.progress_ms = now_ms
        if done is not None:
            reply.finish = done.finish
            reply.record.input_tokens = done.input_tokens
            reply.record.output_tokens = done.output_tokens
            reply.record.cached_tokens = done.cached_tokens
        if reply.speaks:
            reply.waiting.extend(reply.cutter.flush())
            self.pump(now_ms, policy)

    def pump(self, now_ms: int, policy: Policy) -> None:
        """Give the next segment to text to speech when it is wanted: one at a time, not too far ahead of the ear."""
        reply = self.reply
        assert reply is not None
        if not reply.waiting or reply.synthesising is not None or reply.failed:
            return
        if not reply.committed and reply.ledger.spans:
            return  # one segment is all that a guess is worth
        if reply.ledger.total_ms - reply.ledger.position(now_ms) > policy.speak_ahead_ms:
            return
        segment = reply.waiting.popleft()
        reply.synthesising = reply.ledger.add_clause(segment)
        if reply.record.speak_ms is None:
            reply.record.speak_ms = now_ms
        self._emit(Synthesize(reply.id, reply.synthesising, segment))

    def add_audio(self, segment: int, duration_ms: int, now_ms: int) -> None:
        reply = self.reply
        assert reply is not None
        if segment != reply.synthesising or duration_ms <= 0:
            return
        if reply.record.first_audio_ms is None:
            reply.record.first_audio_ms = now_ms
        reply.progress_ms = now_ms
        reply.ledger.add_audio(segment, duration_ms)
        reply.record.audio_ms = reply.ledger.total_ms

    def end_clause(self, segment: int, now_ms: int, policy: Policy) -> None:
        reply = self.reply
        assert reply is not None
        if segment != reply.synthesising:
            return
        reply.ledger.finish_clause(segment)
        reply.synthesising = None
        reply.record.audio_done_ms = reply.progress_ms = now_ms
        self.pump(now_ms, policy)

    def fail(self, reason: str, now_ms: int) -> None:
        """A model gave up: what has been made is still said, nothing more is made."""
        reply = self.reply
        assert reply is not None
        reply.failed = reason
        reply.text_done = True
        if reply.synthesising is not None:
            reply.ledger.finish_clause(reply.synthesising)
            reply.synthesising = None
        if reply.record.text_done_ms is None:
            reply.record.text_done_ms = now_ms

    def announce(self) -> None:
        """Say once that all of a certain reply has been made."""
        reply = self.reply
        assert reply is not None
        if reply.committed and reply.generated and not reply.failed and not reply.announced:
            reply.announced = True
            record = reply.record
            tokens = (record.input_tokens, record.output_tokens, record.cached_tokens)
            self._emit(ReplyGenerated(reply.id, reply.item, reply.finish or "stop", *tokens))

    # -- ending -------------------------------------------------------------------------------------

    def drop(self) -> Reply | None:
        """Forget the live reply and stop all work on it -> what it was."""
        reply, self.reply = self.reply, None
        if reply is not None:
            self._emit(CancelReply(reply.id))
        return reply
