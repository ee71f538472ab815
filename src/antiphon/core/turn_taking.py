"""What is done about a fact: the right half of the decision table.

What concerns one side alone stands in `user` and `agent`; here is what concerns both.
"""

from __future__ import annotations

from antiphon.core import actions as act
from antiphon.core import agent, user
from antiphon.core import events as ev
from antiphon.core.agent_reply import PendingReply
from antiphon.core.history import Item
from antiphon.core.interruption import Verdict, judge
from antiphon.core.state import Fact, State
from antiphon.core.user_turn import UserTurn

SILENCE = "..."
"""What the language model is told of a user who says nothing."""
_NO_APOLOGY_FOR = ("apology", "prompt", "filler")

# --- the end of the call -----------------------------------------------------------------------------


def stop_everything(state: State, now_ms: int) -> None:
    """Stop the reply, and drop the turns."""
    agent.stop(state, state.end_reason, now_ms, silence=False)
    user.drop_turns(state)


def tell_end(state: State, now_ms: int) -> None:
    """End the call."""
    state.emit(act.Hangup(state.end_reason))


def make_way_for_goodbye(state: State, now_ms: int) -> None:
    """Stop the reply, and drop the turns."""
    state.goodbye = state.finish
    agent.stop(state, state.goodbye.reason, now_ms)
    user.drop_turns(state)
    state.pending = None


def say_goodbye(state: State, now_ms: int) -> None:
    """Say the goodbye."""
    agent.say(state, "goodbye", state.goodbye.text, now_ms)


def insist_on_goodbye(state: State, now_ms: int) -> None:
    """It is being said already; if it was ordered, nothing calls it off any more."""
    if not state.finish.unless_caller_speaks:
        state.goodbye = state.finish


def call_off_goodbye(state: State, now_ms: int) -> None:
    """Stop the goodbye."""
    agent.stop(state, "caller is back", now_ms)


def stop_goodbye(state: State, now_ms: int) -> None:
    """Stop the goodbye, and end the call."""
    stop_reply(state, now_ms)
    hang_up(state, now_ms)


def finish_goodbye(state: State, now_ms: int) -> None:
    """End the call."""
    finish(state, now_ms)
    hang_up(state, now_ms)


def hang_up(state: State, now_ms: int) -> None:
    """End the call."""
    state.end_reason = state.goodbye.reason
    state.note(Fact.HANG_UP)


# --- nobody speaks -----------------------------------------------------------------------------------


def begin_turn(state: State, now_ms: int) -> None:
    """Open a turn, or take the one that was overheard for it."""
    overheard = state.overheard
    if overheard is not None:
        overheard.holds_floor = True
    else:
        user.open_turn(state, now_ms)


def say_script(state: State, now_ms: int) -> None:
    """Say it."""
    agent.say(state, *state.script, now_ms)


def give_pending_reply(state: State, now_ms: int) -> None:
    """Answer from the history as it stands."""
    pending, state.pending = state.pending, None
    assert pending is not None
    agent.reply_to_history(state, pending, now_ms)


def request_reply(state: State, now_ms: int) -> None:
    """It is pending, unless there is one already."""
    if state.pending is None:
        state.pending = state.requested
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
        state.say("filler", text)


def break_silence(state: State, now_ms: int) -> None:
    """Ask whether the user is still there, have the model answer the silence, or say goodbye."""
    policy, reason = state.policy, "nobody answered"
    if policy.idle_answer:
        state.unanswered_prompts += 1
        _answer_silence(state, now_ms - state.idle_since_ms)
    elif state.unanswered_prompts < policy.max_idle_prompts and policy.idle_prompt:
        state.unanswered_prompts += 1
        state.say("prompt", policy.idle_prompt)
    elif policy.goodbye:
        state.finish = ev.Finish(reason, True, policy.goodbye, unless_caller_speaks=True)
        state.note(Fact.GOODBYE)
    else:
        state.end_reason = reason
        state.note(Fact.HANG_UP)


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


def take_pause(state: State, now_ms: int) -> None:
    """Ask for the transcript, unless it is there or on its way."""
    user.ask_transcript(state, state.current, now_ms)
    if state.current.text is not None:
        state.note(Fact.TRANSCRIBED)


def force_turn(state: State, now_ms: int) -> None:
    """It is over by force, as soon as its transcript is there."""
    turn = state.current
    turn.forced = True
    state.note(Fact.NEWS)


def keep_transcribing(state: State, now_ms: int) -> None:
    """Ask for a transcript when silence begins, and for partial ones while there is speech."""
    policy = state.policy
    user.ask_ahead(state, now_ms)
    if policy.partial_every_ms > 0:
        user.ask_partial(state, policy.partial_every_ms, 2 * policy.keep_transcript_after_ms)


def show_partial(state: State, now_ms: int) -> None:
    """Show it, and have all but its last word read into the prompt cache."""
    turn = state.current
    # The last word is still growing: what is read into the cache must not have to be taken back.
    stable = turn.latest_partial.rpartition(" ")[0].rstrip(" .,;:!?")
    shown = _show(state, turn, turn.latest_partial)
    if shown and stable and state.policy.warm_prompt and turn.wants_reply(state.policy):
        state.emit(act.WarmPrompt(state.history.snapshot(), stable))


def show_early_transcript(state: State, now_ms: int) -> None:
    """The pause is not certain yet: show it as a partial one."""
    _show(state, state.current, state.current.text or "")


def _show(state: State, turn: UserTurn, text: str) -> bool:
    """-> whether there was anything new to show."""
    shown = turn.show_partial(text)
    if shown:
        state.emit(act.Transcript(turn.item, turn.partial, final=False))
    return shown


def ask_again_later(state: State, now_ms: int) -> None:
    """The pause is not certain yet: ask again when it is."""
    turn = state.current
    turn.ahead_ms, turn.failure = 0, ""


# --- has the user finished? --------------------------------------------------------------------------


def resume_turn(state: State, now_ms: int) -> None:
    """Throw the preemptive reply away, and go on listening."""
    state.drop_reply()
    state.current.keep_beginning(state.policy)
    user.go_on(state, state.current)


def score_again(state: State, now_ms: int) -> None:
    """Ask the turn detector when that is due."""
    if state.current.score_due(state.policy, state.vad):
        user.ask_score(state, now_ms)
    state.note(Fact.NEWS)


def use_transcript(state: State, now_ms: int) -> None:
    """Generate a reply preemptively, in case the turn is over."""
    generate_preemptively(state, now_ms)
    state.note(Fact.NEWS)


def generate_preemptively(state: State, now_ms: int) -> None:
    """Prepare the reply to what was said so far, if one is wanted and is not under way."""
    turn, policy, reply = state.current, state.policy, state.reply
    if not turn.text or not turn.wants_reply(policy) or policy.preemptive_generation_after_ms <= 0:
        return
    if reply is not None:
        if reply.prompt == turn.text and not reply.failed:
            return
        state.drop_reply()
    record = turn.record
    record.preemptive_generations += 1
    _begin_answer(state, turn)
    told = (*state.history.snapshot(), Item(turn.item, "user", turn.text))
    scored = policy.auto_turns and policy.use_turn_detector and policy.text_end_threshold > 0
    agent.generate(state, told, now_ms, score_text_end=scored)


def _begin_answer(state: State, turn: UserTurn) -> None:
    asked = state.pending or PendingReply("answer")
    pending = PendingReply("answer", asked.options, asked.speaks)
    agent.begin(state, pending, turn.record, prompt=turn.text or "")


def take_turn(state: State, now_ms: int) -> None:
    """The turn enters the history."""
    turn, record = state.current, state.current.record
    record.user_text = turn.text or ""
    record.speech_end_ms = now_ms - state.vad.silence_ms if state.policy.auto_turns else None
    user.close_turn(state)
    user.enter_history(state, turn)
    state.answered = turn


def answer_turn(state: State, now_ms: int) -> None:
    """Its reply, prepared or not, may be heard."""
    turn, reply = state.answered, state.reply
    assert turn is not None
    if reply is not None and (reply.failed or reply.prompt != turn.text):
        state.drop_reply()
    prepared = state.reply is not None
    if not prepared:
        _begin_answer(state, turn)
    record = turn.record
    record.preemptive_used = prepared
    state.pending = None
    agent.commit(state, now_ms)
    if not prepared:
        agent.generate(state, state.history.snapshot(), now_ms)
    agent.release_tools(state)


def keep_turn(state: State, now_ms: int) -> None:
    """The turn enters the history, and is not answered."""
    record = state.current.record
    take_turn(state, now_ms)
    state.answered = None
    state.drop_reply()
    record.status, record.committed_ms = "none", now_ms
    state.record_turn(record)


def give_up_turn(state: State, now_ms: int) -> None:
    """Tell the client that it could not be transcribed."""
    turn = state.current
    user.say_untranscribed(state, turn, turn.failure or "no transcript in time")
    state.drop_reply()
    user.close_turn(state)


def apologise(state: State, now_ms: int) -> None:
    """Ask the user to say it again."""
    agent.say(state, "apology", state.policy.apology, now_ms)


# --- a reply is due, or is heard ----------------------------------------------------------------------


def withdraw_reply(state: State, now_ms: int) -> None:
    """Withdraw the reply; its turn goes on where that is possible, else a new one begins."""
    reopened, reply = state.reopenable, state.live
    if reopened is None:
        if reply.kind == "answer" and not reply.first_call_item:
            # Should the speech turn out to be nothing, the answer is still owed. One that has called functions is
            # followed up when they return; a new one would only call them again.
            state.pending = PendingReply("answer", reply.options, reply.speaks)
        user.open_turn(state, now_ms)  # told first: clients stop their playout by it
    agent.stop(state, "turn_detected", now_ms, silence=False)
    state.answered = reopened


def reopen_turn(state: State, now_ms: int) -> None:
    """Go on with the reopened turn, if there is one."""
    turn, state.answered = state.answered, None
    if turn is not None:
        if state.history.find(turn.item) is not None:
            state.history.remove(turn.item)
            state.emit(act.ItemRemoved(turn.item))
        user.reopen(state, turn)


def leave_speech(state: State, now_ms: int) -> None:
    """Nothing: speech that may not interrupt is heard when the agent has finished."""


def play(state: State, now_ms: int) -> None:
    """Send it."""
    reply = state.live
    reply.audible = True
    state.emit(act.Play(reply.id))


def give_up_reply(state: State, now_ms: int) -> None:
    """The reply has failed: what has been made is still said."""
    agent.fail(state, "reply_timeout", "no reply in time", now_ms)


def give_up_stalled_reply(state: State, now_ms: int) -> None:
    """A model has stalled, or the line to the client: what is there of the reply has to do."""
    if not state.live.generated:
        give_up_reply(state, now_ms)
    state.note(Fact.REPLY_OVER)


def finish_reply(state: State, now_ms: int) -> None:
    """The reply enters the history; a failed one is apologised for."""
    reply = state.live
    finish(state, now_ms)
    state.warm_head()
    if reply.failed and reply.kind not in _NO_APOLOGY_FOR and state.policy.apology:
        state.say("apology", state.policy.apology)


def finish(state: State, now_ms: int) -> None:
    """The reply enters the history, as far as it was heard."""
    if state.live.silent and not state.live.failed:
        message = "text to speech made no sound of the reply"
        agent.fail(state, "speech_failed", message, now_ms)
    agent.finish(state, now_ms)


def stop_reply(state: State, now_ms: int) -> None:
    """Stop the reply; history keeps what was heard."""
    agent.stop(state, state.stop_reason, now_ms, position_ms=state.stop_ms)


# --- the user speaks over the agent -------------------------------------------------------------------


def pause_for_overlap(state: State, now_ms: int) -> None:
    """Open a turn, and pause the agent's voice until it is known whether an interruption is meant."""
    user.open_turn(state, now_ms)
    state.live.playout.pause(now_ms, cleared=state.policy.client_can_clear)
    state.emit(act.Pause(state.live.id))


def interrupt_at_once(state: State, now_ms: int) -> None:
    """Open a turn; the policy says that any speech is meant."""
    user.open_turn(state, now_ms)
    state.note(Fact.MEANT)


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
    """Judge by its words whether an interruption is meant."""
    turn = state.current
    turn.partial = turn.latest_partial
    if not state.vad.paused:
        _judge(state, turn.partial, now_ms)


def judge_transcript(state: State, now_ms: int) -> None:
    """Judge by its words whether an interruption is meant."""
    _judge(state, state.current.text, now_ms)


def _judge(state: State, text: str | None, now_ms: int) -> None:
    turn, reply, vad = state.current, state.live, state.vad
    heard, unheard = reply.playout.heard(reply.playout.position(now_ms))
    # Only what sounded around now can come back as an echo; earlier words the user may well repeat in answer.
    around = " ".join([*heard.split()[-6:], *unheard.split()[:6]])
    silent = vad.paused and turn.text is not None
    speech_ms = turn.speech_ms(vad)
    verdict = judge(state.policy, text=text, speech_ms=speech_ms, silent=silent, spoken=around)
    if verdict is not Verdict.WAIT:
        state.note(Fact.MEANT if verdict is Verdict.MEANT else Fact.NOT_MEANT)


def judge_by_length(state: State, now_ms: int) -> None:
    """No word of it came back: go by its length."""
    brief = state.current.speech_ms(state.vad) < state.policy.barge_in_sure_ms // 2
    state.note(Fact.NOT_MEANT if brief and state.vad.paused else Fact.MEANT)


def interrupt(state: State, now_ms: int) -> None:
    """Stop the agent."""
    turn = state.current
    turn.interrupts = True
    agent.stop(state, "turn_detected", now_ms)


def hear_out(state: State, now_ms: int) -> None:
    """Go on listening."""
    if state.current.failure:  # its words are needed after all
        user.ask_transcript(state, state.current, now_ms)


def find_end(state: State, now_ms: int) -> None:
    """Find out whether the turn is over."""
    if state.policy.use_turn_detector:
        user.ask_score(state, now_ms)
    generate_preemptively(state, now_ms)
    hear_out(state, now_ms)


def drop_false_interruption(state: State, now_ms: int) -> None:
    """Forget it."""
    state.facts.discard(Fact.CLEARED)
    record = state.live.record
    record.false_interruptions += 1
    user.drop_turn(state, now_ms)


def go_on_speaking(state: State, now_ms: int) -> None:
    """Go on with the word that was cut off."""
    playout = state.live.playout
    position_ms = playout.position(now_ms)
    if state.policy.client_can_clear:
        position_ms = playout.word_start(position_ms)
    playout.rewind(position_ms)
    state.emit(act.Play(state.live.id, position_ms))


# --- what a client asks for ---------------------------------------------------------------------------


def commit_overheard(state: State, now_ms: int) -> None:
    """What is said beside the reply is a turn: ask for its transcript."""
    state.facts.discard(Fact.COMMITTED)
    user.commit_overheard(state, state.commit.end_ms, now_ms)


def commit_by_hand(state: State, now_ms: int) -> None:
    """Everything that no turn has taken is one."""
    user.open_turn_by_hand(state, state.commit.end_ms)
    commit_turn(state, now_ms)


def commit_turn(state: State, now_ms: int) -> None:
    """The turn is over."""
    state.current.commit(state.commit.reply)


def ask_committed(state: State, now_ms: int) -> None:
    """Ask for its transcript."""
    state.drop_preemptive()
    user.ask_transcript(state, state.current, now_ms, state.commit.end_ms)


def commit_pausing_turn(state: State, now_ms: int) -> None:
    """The turn is over, or, where it was already, a new one beside it is: ask for its transcript."""
    if state.current.forced:
        commit_beside(state, now_ms)
    else:
        commit_turn(state, now_ms)
        ask_committed(state, now_ms)


def commit_beside(state: State, now_ms: int) -> None:
    """What was said is a turn beside whatever holds the floor: ask for its transcript."""
    turn = user.detach_turn(state, state.commit.end_ms)
    turn.commit(state.commit.reply)
    user.ask_transcript(state, turn, now_ms, state.commit.end_ms)


def clear_audio(state: State, now_ms: int) -> None:
    """Forget what belongs to no turn."""
    user.drop_overheard(state)
    state.vad.split(state.clear_ms)


def clear_turn(state: State, now_ms: int) -> None:
    """Forget the turn."""
    user.drop_overheard(state)
    state.drop_preemptive()
    user.drop_turn(state, now_ms)


def request_at_turn_end(state: State, now_ms: int) -> None:
    """The turn is to be answered so, whatever the policy says."""
    turn = state.current
    turn.reply_wanted = True
    state.drop_preemptive()  # it was made without these options
    state.pending = state.requested


def add_user_text(state: State, now_ms: int) -> None:
    """It joins the history, and is answered where that is wanted."""
    state.drop_preemptive()
    state.text_count += 1
    item = Item(state.free_id(f"w{state.text_count}"), "user", state.text.text.strip())
    state.emit(act.ItemAdded(item, state.history.add(item)))
    state.unanswered_prompts = 0
    state.stay_awake(now_ms)
    if state.text.reply:
        state.pending = PendingReply("answer")


def delete_item(state: State, now_ms: int) -> None:
    """Take it out of the history."""
    if state.history.find(state.deleted_item) is None:
        message = f"there is no item {state.deleted_item!r} to delete"
        state.emit(act.Fault("item_delete_invalid_item_id", message))
        return
    state.drop_preemptive()
    state.history.remove(state.deleted_item)
    state.emit(act.ItemRemoved(state.deleted_item))
