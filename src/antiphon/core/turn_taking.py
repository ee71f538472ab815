"""What is done when the floor changes, and what is done without a change: the right half of the decision table.

A context manager surrounds a change of the floor: what stands before `yield` is done before, the rest after. Everything
here concerns both sides; what concerns one side alone stands in `user` and `agent`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from antiphon.core import actions as act
from antiphon.core import agent, user
from antiphon.core.agent_reply import PendingReply
from antiphon.core.history import Item
from antiphon.core.interruption import Verdict, judge
from antiphon.core.state import Fact, Goodbye, Script, State
from antiphon.core.user_turn import UserTurn

SILENCE = "..."
"""What the language model is told of a user who says nothing."""
_NO_APOLOGY_FOR = ("apology", "prompt", "filler")

# --- the end of the call -----------------------------------------------------------------------------


@contextmanager
def hang_up(state: State, now_ms: int) -> Iterator[None]:
    """End the call."""
    reason = state.requests.hang_up_reason
    agent.stop(state, reason, now_ms, silence=False)
    user.drop_turns(state)
    yield
    state.emit(act.Hangup(reason))


def _end(state: State, reason: str) -> None:
    state.requests.hang_up_reason = reason
    state.note(Fact.HANG_UP)


@contextmanager
def say_goodbye(state: State, now_ms: int) -> Iterator[None]:
    """Stop everything, and say the goodbye."""
    goodbye = state.requests.goodbye
    agent.stop(state, goodbye.reason, now_ms)
    user.drop_turns(state)
    state.pending, state.goodbye = None, goodbye
    yield
    agent.say(state, "goodbye", goodbye.text, now_ms)


def insist_on_goodbye(state: State, now_ms: int) -> None:
    """The goodbye is being said already; from now on nothing calls it off."""
    asked = state.requests.goodbye
    if asked.final:
        state.goodbye = asked


@contextmanager
def call_off_goodbye(state: State, now_ms: int) -> Iterator[None]:
    """The user is back before the line was cut: listen."""
    agent.stop(state, "caller is back", now_ms)
    yield
    user.open_turn(state, now_ms)


def stop_goodbye(state: State, now_ms: int) -> None:
    """A goodbye that is stopped was the last word."""
    _stop(state, now_ms)
    _end(state, state.goodbye.reason)


def cut_goodbye(state: State, now_ms: int) -> None:
    """The goodbye makes no progress: end the call without the rest."""
    _end(state, state.goodbye.reason)


def play_goodbye(state: State, now_ms: int) -> None:
    """Send its audio."""
    _play(state)


def finish_goodbye(state: State, now_ms: int) -> None:
    """The goodbye is over: end the call."""
    _finish(state, now_ms)
    _end(state, state.goodbye.reason)


# --- nobody speaks -----------------------------------------------------------------------------------


@contextmanager
def begin_turn(state: State, now_ms: int) -> Iterator[None]:
    """A turn begins, or goes on that was overheard beside the reply."""
    yield
    overheard = state.overheard
    if overheard is not None:
        overheard.holds_floor = True
    else:
        user.open_turn(state, now_ms)


@contextmanager
def say_script(state: State, now_ms: int) -> Iterator[None]:
    """Say it."""
    script = state.requests.script
    yield
    agent.say(state, script.kind, script.text, now_ms)


@contextmanager
def give_pending_reply(state: State, now_ms: int) -> Iterator[None]:
    """Answer from the history as it stands."""
    pending = state.pending
    assert pending is not None
    yield
    state.pending = None
    agent.reply_to_history(state, pending, now_ms)


def request_reply(state: State, now_ms: int) -> None:
    """It is pending until what was committed before it is in the history."""
    if state.pending is None:
        state.pending = state.requests.reply
    else:
        refuse_reply(state, now_ms)


def refuse_reply(state: State, now_ms: int) -> None:
    """Tell the client that there is a reply already."""
    message = "a reply is already under way; cancel it or wait for its end"
    state.emit(act.Fault("conversation_already_has_active_response", message))


def fill_wait(state: State, now_ms: int) -> None:
    """Say that it takes a moment."""
    text = state.fillers.take(state.policy)
    if text:
        _say(state, "filler", text)


def break_silence(state: State, now_ms: int) -> None:
    """Ask whether the user is still there, have the model answer the silence, or say goodbye."""
    policy = state.policy
    if policy.idle_answer:
        state.unanswered_prompts += 1
        _answer_silence(state, now_ms - state.idle_since_ms)
    elif state.unanswered_prompts < policy.max_idle_prompts and policy.idle_prompt:
        state.unanswered_prompts += 1
        _say(state, "prompt", policy.idle_prompt)
    elif policy.goodbye:
        state.requests.goodbye = Goodbye("nobody answered", policy.goodbye)
        state.note(Fact.GOODBYE)
    else:
        _end(state, "nobody answered")


def _say(state: State, kind: str, text: str) -> None:
    state.requests.script = Script(kind, text)
    state.note(Fact.SCRIPT)


def _answer_silence(state: State, silent_ms: int) -> None:
    """Nobody has said anything for so long: that too is something to answer."""
    end_ms = state.vad.heard_ms
    start_ms = max(state.taken_ms, end_ms - silent_ms, 0)
    item = Item(state.new_item(), "user", SILENCE)
    before = state.history.add(item)
    state.emit(act.SilencePassed(item.id, start_ms, end_ms))
    state.emit(act.ItemAdded(item, before))
    state.pending = PendingReply("prompt")


# --- the user speaks ---------------------------------------------------------------------------------


@contextmanager
def pause_turn(state: State, now_ms: int) -> Iterator[None]:
    """Ask for the transcript, unless it is on its way."""
    yield
    user.ask_transcript(state, state.current, now_ms)
    if state.current.text is not None:
        state.note(Fact.TRANSCRIBED)


@contextmanager
def end_long_turn(state: State, now_ms: int) -> Iterator[None]:
    """It is over by force: ask for its transcript."""
    state.current.forced = True
    yield
    user.ask_transcript(state, state.current, now_ms)


def keep_transcribing(state: State, now_ms: int) -> None:
    """Ask for a transcript when silence begins, and for partial ones while there is speech."""
    policy = state.policy
    user.ask_ahead(state, now_ms)
    if policy.partial_every_ms > 0:
        user.ask_partial(state, policy.partial_every_ms, 2 * policy.keep_transcript_after_ms)


def show_partial(state: State, now_ms: int) -> None:
    """Show it, and have all but its last word read into the prompt cache."""
    turn = state.current
    if not _show(state, turn, turn.latest_partial):
        return
    # The last word is still growing: what is read into the cache must not have to be taken back.
    stable = turn.latest_partial.rpartition(" ")[0].rstrip(" .,;:!?")
    if stable and state.policy.warm_prompt and turn.wants_reply(state.policy):
        state.emit(act.WarmPrompt(state.history.snapshot(), stable))


def show_early_transcript(state: State, now_ms: int) -> None:
    """It was asked for before the pause is certain: show it as a partial one."""
    _show(state, state.current, state.current.text or "")


def _show(state: State, turn: UserTurn, text: str) -> bool:
    """-> whether there was anything new to show."""
    shown = turn.show_partial(text)
    if shown:
        state.emit(act.Transcript(turn.item, turn.partial, final=False))
    return shown


def ask_again_later(state: State, now_ms: int) -> None:
    """It was asked for before the pause is certain: ask again when it is."""
    state.current.ahead_ms = 0


# --- has the user finished? --------------------------------------------------------------------------


@contextmanager
def resume_turn(state: State, now_ms: int) -> Iterator[None]:
    """Throw the preemptive reply away, and go on listening."""
    state.drop_reply()
    state.current.keep_beginning(state.policy)
    user.go_on(state, state.current)
    yield


def force_turn(state: State, now_ms: int) -> None:
    """It is over by force as soon as its transcript is there."""
    state.current.forced = True
    state.note(Fact.NEWS)


def score_again(state: State, now_ms: int) -> None:
    """Ask the turn detector when that is due."""
    if state.current.score_due(state.policy, state.vad):
        user.ask_score(state, now_ms)
    state.note(Fact.NEWS)


def generate_preemptively(state: State, now_ms: int) -> None:
    """Prepare the reply, unheard, in case the turn is over."""
    preempt(state, now_ms)
    state.note(Fact.NEWS)


def preempt(state: State, now_ms: int) -> None:
    """Prepare the reply to what was said so far, if one is wanted and is not under way."""
    turn, policy, reply = state.current, state.policy, state.reply
    if not turn.text or not turn.wants_reply(policy) or policy.preemptive_generation_after_ms <= 0:
        return
    if reply is not None:
        if reply.prompt == turn.text and not reply.failed:
            return
        state.drop_reply()
    turn.record.preemptive_generations += 1
    _begin_answer(state, turn)
    said = Item(turn.item, "user", turn.text)
    scored = policy.auto_turns and policy.use_turn_detector and policy.text_end_threshold > 0
    told = (*state.history.snapshot(), said)
    agent.generate(state, told, now_ms, score_text_end=scored)


def _begin_answer(state: State, turn: UserTurn) -> None:
    asked = state.pending or PendingReply("answer")
    pending = PendingReply("answer", asked.options, asked.speaks)
    agent.begin(state, pending, turn.record, prompt=turn.text or "")


@contextmanager
def answer_turn(state: State, now_ms: int) -> Iterator[None]:
    """The turn enters the history, and its reply, prepared or not, may be heard."""
    turn = _end_turn(state, now_ms)
    yield
    state.answered = turn
    reply = state.reply
    if reply is not None and (reply.failed or reply.prompt != turn.text):
        state.drop_reply()
    prepared = state.reply is not None
    if not prepared:
        _begin_answer(state, turn)
    turn.record.preemptive_used = prepared
    state.pending = None
    agent.commit(state, now_ms)
    if not prepared:
        agent.generate(state, state.history.snapshot(), now_ms)
    agent.release_tools(state)


@contextmanager
def keep_turn(state: State, now_ms: int) -> Iterator[None]:
    """The turn enters the history, and nothing is answered."""
    turn = _end_turn(state, now_ms)
    state.drop_reply()
    turn.record.status, turn.record.committed_ms = "none", now_ms
    state.record_turn(turn.record)
    yield


def _end_turn(state: State, now_ms: int) -> UserTurn:
    turn, record = state.current, state.current.record
    record.user_text = turn.text or ""
    record.speech_end_ms = now_ms - state.vad.silence_ms if state.policy.auto_turns else None
    user.close_turn(state)
    user.enter_history(state, turn)
    return turn


@contextmanager
def drop_turn(state: State, now_ms: int) -> Iterator[None]:
    """Forget it."""
    user.drop_turn(state)
    yield


@contextmanager
def give_up_turn(state: State, now_ms: int) -> Iterator[None]:
    """Tell that it could not be transcribed."""
    _give_up(state)
    yield


@contextmanager
def apologise(state: State, now_ms: int) -> Iterator[None]:
    """Tell that it could not be transcribed, and ask the user to say it again."""
    _give_up(state)
    yield
    agent.say(state, "apology", state.policy.apology, now_ms)


def _give_up(state: State) -> None:
    turn = state.current
    user.say_untranscribed(state, turn, turn.failure or "no transcript in time")
    state.drop_reply()
    user.close_turn(state)


# --- a reply is due, or is heard ----------------------------------------------------------------------


@contextmanager
def withdraw_reply(state: State, now_ms: int) -> Iterator[None]:
    """Withdraw the reply, reopen its turn where that is possible, and go on listening."""
    reopened, reply = state.reopenable, state.live
    if reopened is None:
        if reply.kind == "answer" and not reply.first_call_item:
            # Should the speech turn out to be nothing, the answer is still owed. One that has called functions is
            # followed up when they return; a new one would only call them again.
            state.pending = PendingReply("answer", reply.options, reply.speaks)
        user.open_turn(state, now_ms)  # told first: clients stop their playback by it
    agent.stop(state, "turn_detected", now_ms, silence=False)
    yield
    if reopened is not None:
        if state.history.find(reopened.item) is not None:
            state.history.remove(reopened.item)
            state.emit(act.ItemRemoved(reopened.item))
        user.reopen(state, reopened)


def leave_speech(state: State, now_ms: int) -> None:
    """Nothing: speech that may not interrupt is heard when the agent has finished."""


@contextmanager
def play(state: State, now_ms: int) -> Iterator[None]:
    """Send its audio."""
    yield
    _play(state)


def _play(state: State) -> None:
    state.live.audible = True
    state.emit(act.Play(state.live.id))


def announce(state: State, now_ms: int) -> None:
    """Tell the client."""
    agent.announce(state)


def give_up_reply(state: State, now_ms: int) -> None:
    """The reply has failed: what has been made is still said."""
    agent.fail(state, "reply_timeout", "no reply in time", now_ms)


def give_up_stalled_reply(state: State, now_ms: int) -> None:
    """A model has stalled, or the line to the client has: what is there of the reply has to do."""
    if not state.live.generated:
        agent.fail(state, "reply_timeout", "no reply in time", now_ms)
    state.note(Fact.REPLY_OVER)


@contextmanager
def finish_reply(state: State, now_ms: int) -> Iterator[None]:
    """The reply enters the history. A failed one is apologised for."""
    reply = state.live
    _finish(state, now_ms)
    state.warm_head()
    yield
    if reply.failed and reply.kind not in _NO_APOLOGY_FOR and state.policy.apology:
        _say(state, "apology", state.policy.apology)


def _finish(state: State, now_ms: int) -> None:
    if state.live.silent and not state.live.failed:
        message = "text to speech made no sound of the reply"
        agent.fail(state, "speech_failed", message, now_ms)
    agent.finish(state, now_ms)


@contextmanager
def hand_over(state: State, now_ms: int) -> Iterator[None]:
    """Count the reply as heard, though the client still plays it, so that the next can be made."""
    plays_until_ms = state.live.playout.ends_at()
    assert plays_until_ms is not None
    agent.hand_over(state, now_ms)
    yield
    state.busy_until_ms = plays_until_ms


@contextmanager
def stop_reply(state: State, now_ms: int) -> Iterator[None]:
    """Stop the reply; history keeps what was heard."""
    _stop(state, now_ms)
    yield


def _stop(state: State, now_ms: int) -> None:
    stop = state.requests.stop
    agent.stop(state, stop.reason, now_ms, position_ms=stop.position_ms)


@contextmanager
def stop_for_text(state: State, now_ms: int) -> Iterator[None]:
    """Stop the reply; the text is added when the floor has changed."""
    agent.stop(state, "turn_detected", now_ms)
    yield
    state.note(Fact.USER_TEXT)


# --- the user speaks over the agent -------------------------------------------------------------------


@contextmanager
def pause_for_overlap(state: State, now_ms: int) -> Iterator[None]:
    """Pause the agent's voice until it is known whether an interruption is meant; the policy may say that any is."""
    if state.policy.barge_in == "immediate":
        yield
        user.open_turn(state, now_ms)
        state.note(Fact.MEANT)
        return
    user.open_turn(state, now_ms)
    state.live.playout.pause(now_ms, cleared=state.policy.client_can_clear)
    state.emit(act.Pause(state.live.id))
    yield


def ask_transcript(state: State, now_ms: int) -> None:
    """Ask for the transcript."""
    user.ask_transcript(state, state.current, now_ms)


def go_on(state: State, now_ms: int) -> None:
    """What was asked is stale."""
    user.go_on(state, state.current)


def judge_while_speaking(state: State, now_ms: int) -> None:
    """Ask for a partial transcript when that is due, and judge by the last one."""
    if not state.vad.paused:
        policy = state.policy
        user.ask_partial(state, policy.barge_in_check_ms, policy.keep_transcript_after_ms)
        _judge(state, state.current.partial or None, now_ms)


def judge_partial(state: State, now_ms: int) -> None:
    """Judge whether it is meant by these words."""
    turn = state.current
    turn.partial = turn.latest_partial
    if not state.vad.paused:
        _judge(state, turn.partial, now_ms)


def judge_transcript(state: State, now_ms: int) -> None:
    """Judge whether it is meant by these words."""
    _judge(state, state.current.text, now_ms)


def _judge(state: State, text: str | None, now_ms: int) -> None:
    turn, reply, vad = state.current, state.live, state.vad
    heard, unheard = reply.playout.heard(reply.playout.position(now_ms))
    # Only what sounded around now can come back as an echo; earlier words the user may well repeat in answer.
    around = " ".join([*heard.split()[-6:], *unheard.split()[:6]])
    verdict = judge(
        state.policy,
        text=text,
        speech_ms=turn.speech_ms(vad),
        silent=vad.paused and turn.text is not None,
        spoken=around,
    )
    if verdict is not Verdict.WAIT:
        state.note(Fact.MEANT if verdict is Verdict.MEANT else Fact.NOT_MEANT)


def judge_by_length(state: State, now_ms: int) -> None:
    """No word of it came back in time: go by its length."""
    brief = state.current.speech_ms(state.vad) < state.policy.barge_in_sure_ms // 2
    state.note(Fact.NOT_MEANT if brief and state.vad.paused else Fact.MEANT)


def judge_without_words(state: State, now_ms: int) -> None:
    """Go by its length; if it is meant, its words are needed after all."""
    judge_by_length(state, now_ms)
    state.note(Fact.WORDS_NEEDED)


@contextmanager
def yield_floor(state: State, now_ms: int) -> Iterator[None]:
    """Stop the agent."""
    _interrupt(state, now_ms)
    yield
    _ask_needed_words(state, now_ms)


@contextmanager
def yield_briefly(state: State, now_ms: int) -> Iterator[None]:
    """Stop the agent, and find out whether the user has finished."""
    _interrupt(state, now_ms)
    yield
    if state.policy.use_turn_detector:
        user.ask_score(state, now_ms)
    preempt(state, now_ms)
    _ask_needed_words(state, now_ms)


def _interrupt(state: State, now_ms: int) -> None:
    state.current.interrupts = True
    agent.stop(state, "turn_detected", now_ms)


def _ask_needed_words(state: State, now_ms: int) -> None:
    if Fact.WORDS_NEEDED in state.facts:
        user.ask_transcript(state, state.current, now_ms)


@contextmanager
def go_on_speaking(state: State, now_ms: int) -> Iterator[None]:
    """Nothing was meant: go on with the word that was cut off."""
    reply = state.live
    reply.record.false_interruptions += 1
    user.drop_turn(state)
    yield
    position_ms = reply.playout.position(now_ms)
    if state.policy.client_can_clear:
        position_ms = reply.playout.word_start(position_ms)
    reply.playout.rewind(position_ms)
    state.emit(act.Play(reply.id, position_ms))


# --- what a client asks for ---------------------------------------------------------------------------


def commit_overheard(state: State, now_ms: int) -> None:
    """What is said beside the reply is a turn."""
    state.facts.discard(Fact.COMMITTED)
    user.commit_overheard(state, state.requests.commit.end_ms, now_ms)


def _mark_committed(state: State, turn: UserTurn) -> None:
    turn.forced, wanted = True, state.requests.commit.reply
    if wanted is not None:
        turn.reply_wanted = wanted


@contextmanager
def commit_by_hand(state: State, now_ms: int) -> Iterator[None]:
    """Everything that no turn has taken is one: ask for its transcript."""
    turn = user.open_turn_by_hand(state, state.requests.commit.end_ms)
    _mark_committed(state, turn)
    yield
    _ask_committed(state, turn, now_ms)


@contextmanager
def commit_turn(state: State, now_ms: int) -> Iterator[None]:
    """The turn is over: ask for its transcript."""
    _mark_committed(state, state.current)
    yield
    _ask_committed(state, state.current, now_ms)


def commit_pausing_turn(state: State, now_ms: int) -> None:
    """The turn is over, or, where it was already, a new one beside it is: ask for its transcript."""
    if state.current.forced:
        commit_beside(state, now_ms)
        return
    _mark_committed(state, state.current)
    _ask_committed(state, state.current, now_ms)


def _ask_committed(state: State, turn: UserTurn, now_ms: int) -> None:
    state.drop_preemptive()
    user.ask_transcript(state, turn, now_ms, state.requests.commit.end_ms)


def commit_beside(state: State, now_ms: int) -> None:
    """What was said is a turn beside whatever holds the floor: ask for its transcript."""
    end_ms = state.requests.commit.end_ms
    turn = user.detach_turn(state, end_ms)
    _mark_committed(state, turn)
    user.ask_transcript(state, turn, now_ms, end_ms)


def commit_overlap(state: State, now_ms: int) -> None:
    """It is meant; it is committed when the floor is the user's."""
    state.note(Fact.MEANT)
    state.note(Fact.COMMITTED)


def clear_audio(state: State, now_ms: int) -> None:
    """Forget what belongs to no turn."""
    user.drop_overheard(state)
    state.vad.split(state.requests.commit.end_ms)


@contextmanager
def clear_turn(state: State, now_ms: int) -> Iterator[None]:
    """Forget the turn."""
    user.drop_overheard(state)
    state.drop_preemptive()
    user.drop_turn(state)
    yield


def request_at_turn_end(state: State, now_ms: int) -> None:
    """The turn is to be answered so, whatever the policy says."""
    state.current.reply_wanted = True
    state.drop_preemptive()  # it was made without these options
    state.pending = state.requests.reply


def add_user_text(state: State, now_ms: int) -> None:
    """It joins the history, and is answered where that is wanted."""
    state.drop_preemptive()
    state.text_count += 1
    item = Item(state.free_id(f"w{state.text_count}"), "user", state.requests.text)
    state.emit(act.ItemAdded(item, state.history.add(item)))
    state.unanswered_prompts = 0
    state.stay_awake(now_ms)
    if state.requests.answer_text:
        state.pending = PendingReply("answer")


def delete_item(state: State, now_ms: int) -> None:
    """Take it out of the history."""
    item_id = state.requests.deleted_item
    if state.history.find(item_id) is None:
        message = f"there is no item {item_id!r} to delete"
        state.emit(act.Fault("item_delete_invalid_item_id", message))
        return
    state.drop_preemptive()
    state.history.remove(item_id)
    state.emit(act.ItemRemoved(item_id))
