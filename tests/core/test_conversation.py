"""What a caller may rely on, one test per promise: turns, guesses, the greeting."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from antiphon.core import actions as act
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.testing.virtual_call import World

Call = Callable[..., World]

SEA = "The sea is deep and cold and very wide."


def records(world: World) -> list[act.TurnRecord]:
    return [a.record for a in world.actions(act.TurnRecorded)]


def user_items(world: World) -> list[str]:
    return [text for role, text in world.transcript() if role == "user"]


# -- turns -------------------------------------------------------------------------------------------


def test_a_clean_turn(call: Call) -> None:
    world = call()
    world.speak(1_000, "what time is it", 1_200)
    world.run(6_000)
    assert world.transcript() == [
        ("user", "what time is it"),
        ("assistant", "You said: what time is it."),
    ]
    assert [a.floor for a in world.actions(act.FloorChanged)] == [
        Floor.CALLER,
        Floor.DECIDING,
        Floor.THINKING,
        Floor.AGENT,
        Floor.OPEN,
    ]
    (record,) = records(world)
    assert (record.status, record.preemptive_generations, record.preemptive_used) == (
        "completed",
        1,
        True,
    )
    assert record.speech_end_ms == pytest.approx(2_200, abs=32)
    assert record.voice_to_voice_ms is not None
    assert record.voice_to_voice_ms < 400


def test_captions_grow_and_become_final(call: Call) -> None:
    world = call()
    world.speak(1_000, "what time is it", 1_200)
    world.run(6_000)
    captions = [(a.text, a.final) for a in world.actions(act.Transcript)]
    assert captions[0] == ("what", False)
    assert captions[-1] == ("what time is it", True)


def test_the_prompt_is_read_ahead_but_never_the_last_growing_word(call: Call) -> None:
    world = call(warm_prompt=True, greeting="Hello.")
    world.speak(3_000, "what time is it", 1_200)
    world.run(8_000)
    warmed = [(len(a.history), a.text) for a in world.actions(act.WarmPrompt)]
    assert warmed == [(0, ""), (1, ""), (1, "what"), (1, "what time"), (3, "")]


def test_nothing_is_read_ahead_when_the_call_is_over(call: Call) -> None:
    world = call(warm_prompt=True, greeting="Good morning, this is the harbour office.")
    world.at(1_500, ev.HungUp())
    world.run(3_000)
    assert world.when(act.WarmPrompt) == [0]


def test_without_guessing_nothing_is_generated_before_the_turn_is_over(call: Call) -> None:
    world = call(preemptive_generation_after_ms=0)
    world.speak(1_000, "what time is it", 1_200)
    world.run(6_000)
    (generate,) = world.actions(act.Generate)
    assert not generate.preemptive
    assert [item.text for item in generate.history] == ["what time is it"]
    assert world.said() == ["You said: what time is it."]


def test_a_pause_in_mid_sentence_leaves_nothing_but_a_count(call: Call) -> None:
    world = call()
    world.finished = lambda words: 0.1 if words.endswith("to") else 0.9
    world.speak(1_000, "I want to go to", 1_500)
    world.speak(3_000, "the sea", 600)
    world.run(3_200)
    guess = world.actions(act.Generate)[0]
    assert guess.preemptive
    assert guess.reply in [a.reply for a in world.actions(act.CancelReply)]
    world.run(9_000)
    began = world.actions(act.ReplyBegan)
    assert len(began) == 1
    assert began[0].reply != guess.reply
    assert world.transcript() == [
        ("user", "I want to go to the sea"),
        ("assistant", "You said: I want to go to the sea."),
    ]
    told = [a for _, a in world.log if getattr(a, "reply", "") == guess.reply]
    assert {type(a) for a in told} <= {act.Generate, act.Synthesize, act.CancelReply}
    (record,) = records(world)
    assert record.preemptive_generations == 2
    # No mark of the guess that was thrown away may pass for one of the reply that was used.
    assert record.generate_ms is not None
    assert record.first_token_ms is not None
    assert record.first_token_ms >= record.generate_ms > 3_500


def test_going_on_before_the_reply_is_audible_continues_the_same_turn(call: Call) -> None:
    world = call()
    world.delays.speak = 700
    world.speak(1_000, "book me a table", 1_000)
    world.speak(2_400, "for two people", 900)
    world.run(9_000)
    assert world.transcript() == [
        ("user", "book me a table for two people"),
        ("assistant", "You said: book me a table for two people."),
    ]
    (withdrawn, answer) = world.actions(act.ReplyEnded)
    assert (withdrawn.status, withdrawn.heard) == ("cancelled", "")
    assert answer.status == "completed"
    assert [a.item for a in world.actions(act.ItemRemoved)] == ["u1"]
    assert len(world.actions(act.SpeechBegan)) == 1
    assert [a.reply for a in world.actions(act.Play)] == [answer.reply]
    # The whole turn is transcribed again, so its audio must have been kept.
    last = [a for a in world.actions(act.Transcribe) if not a.partial][-1]
    assert last.start_ms < 1_000


def test_turns_that_may_not_be_reopened_become_two(call: Call) -> None:
    world = call(reopen_turns=False)
    world.delays.speak = 700
    world.speak(1_000, "book me a table", 1_000)
    world.speak(2_400, "for two people", 900)
    world.run(9_000)
    assert user_items(world) == ["book me a table", "for two people"]
    assert world.said()[-1] == "You said: for two people."


def test_a_wrong_turn_detector_only_delays(call: Call) -> None:
    world = call()
    world.text_end_probability = lambda words: None
    world.finished = lambda words: 0.0
    world.speak(1_000, "what time is it", 1_200)
    world.run(9_000)
    assert world.said() == ["You said: what time is it."]
    (ended_ms,) = world.when(act.SpeechEnded)
    assert 2_200 + world.policy.unsure_silence_ms <= ended_ms
    assert ended_ms <= 2_200 + world.policy.max_silence_ms + 100


def test_words_that_want_to_go_on_are_waited_for_although_they_sound_finished(call: Call) -> None:
    world = call()
    world.text_end_probability = lambda words: 0.001 if words == "what do I need" else 0.9
    world.speak(1_000, "what do I need", 800)
    world.speak(2_300, "to bake a cake", 900)  # half a second later
    world.run(9_000)
    assert [text for role, text in world.transcript() if role == "user"] == [
        "what do I need to bake a cake"
    ]
    (record,) = (action.record for action in world.actions(act.TurnRecorded))
    assert record.text_end_probability == 0.9
    assert (record.preemptive_generations, record.preemptive_used) == (2, True)


def test_a_judgement_of_other_words_says_nothing(call: Call) -> None:
    world = call()
    world.speak(1_000, "what do I need", 800)
    world.run(1_890)
    generate = world.actions(act.Generate)[-1]
    world.at(1_900, ev.TextEndScored(generate.job + 99, 0.0))
    world.run(9_000)
    (record,) = (action.record for action in world.actions(act.TurnRecorded))
    assert record.text_end_probability == world.text_end_probability("what do I need")
    assert record.committed_ms is not None
    assert record.speech_end_ms is not None
    assert record.committed_ms - record.speech_end_ms < 400


def test_a_silent_turn_detector_only_delays(call: Call) -> None:
    world = call()
    world.hang("ScoreTurn")
    world.speak(1_000, "what time is it", 1_200)
    world.run(9_000)
    assert world.said() == ["You said: what time is it."]


def test_dictation_is_waited_for(call: Call) -> None:
    world = call()
    world.reply = lambda words: (
        "What is your phone number?" if "book" in words else f"{words}, right?"
    )
    world.speak(1_000, "please book a table", 1_200)
    world.speak(6_000, "0 1 7 2", 1_500)
    world.speak(9_300, "5 5 5 9", 1_500)
    world.run(20_000)
    assert user_items(world)[1] == "0 1 7 2 5 5 5 9"
    assert world.said()[1] == "0 1 7 2 5 5 5 9, right?"


def test_a_very_long_utterance_is_kept_piece_by_piece(call: Call) -> None:
    world = call()
    world.finished = lambda words: 0.1
    words = [f"word{n}" for n in range(300)]
    for n in range(30):  # 150 s: ten words in 4 s, then a pause of 1 s
        world.speak(1_000 + 5_000 * n, " ".join(words[10 * n : 10 * n + 10]), 4_000)
    world.run(170_000)
    assert " ".join(user_items(world)).split() == words
    asked = [a for a in world.actions(act.Transcribe) if not a.partial]
    longest_ms = max(a.end_ms - a.start_ms for a in asked)
    assert longest_ms <= world.policy.keep_transcript_after_ms + 10_000
    ended = world.when(act.SpeechEnded)
    assert ended[0] <= 1_000 + world.policy.max_turn_ms + 1_000
    assert world.said()[-1] != ""


def test_somebody_who_never_pauses_is_heard_to_the_last_word(call: Call) -> None:
    world = call(max_turn_ms=20_000)
    words = [f"word{n}" for n in range(150)]
    world.speak(1_000, " ".join(words), 75_000)
    world.run(90_000)
    assert len(user_items(world)) == 4
    heard = " ".join(user_items(world)).split()
    # A word in the middle of a forced cut may be in neither half.
    assert len(heard) >= len(words) - 4
    assert heard[-1] == words[-1]
    assert world.said()[-1].startswith("You said:")


def test_noise_is_not_a_turn(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.speak(1_000, "", 400)
    world.run(8_000)
    assert world.transcript() == []
    assert world.actions(act.Generate) == []
    assert [a.item for a in world.actions(act.SpeechDropped)] == ["u1"]
    assert world.floor is Floor.OPEN


def test_a_click_is_not_even_noticed(call: Call) -> None:
    world = call(idle_prompt_after_ms=0)
    world.speak(1_000, "", 60)
    assert world.run(5_000).log == []


def test_a_late_transcript_is_waited_for(call: Call) -> None:
    world = call()
    world.delays.transcribe = 3_000
    world.speak(1_000, "what time is it", 1_200)
    world.run(12_000)
    assert world.said() == ["You said: what time is it."]
    assert world.actions(act.Fault) == []


def test_a_transcript_that_never_comes_ends_in_an_apology(call: Call) -> None:
    world = call()
    world.hang("Transcribe")
    world.speak(1_000, "what time is it", 1_200)
    world.run(25_000)
    assert world.said()[0] == world.policy.apology
    assert [a.code for a in world.actions(act.Fault)] == ["transcription_failed"]
    assert len(world.actions(act.TranscriptFailed)) == 1


def test_a_failed_transcript_ends_in_an_apology_and_the_call_lives(call: Call) -> None:
    world = call(partial_every_ms=0)
    world.fail["Transcribe"] = 2  # the one made ahead is tried again
    world.speak(1_000, "what time is it", 1_200)
    world.speak(9_000, "what time is it", 1_200)
    world.run(14_000)
    assert world.said() == [world.policy.apology, "You said: what time is it."]


def test_an_utterance_finalised_twice_starts_one_reply(call: Call) -> None:
    # livekit/agents-js 1791: two replies that interrupt each other, then silence for the rest of the call.
    world = call()
    world.speak(1_000, "what time is it", 1_200)
    for at_ms in (2_340, 2_400, 2_480, 2_600, 3_000):
        world.run(at_ms)
        done = [a for a in world.actions(act.Transcribe) if not a.partial and a.end_ms < at_ms - 60]
        for transcribe in done:
            world.feed(ev.Transcribed(transcribe.job, "what time is it now"))
    world.speak(8_000, "and in Oslo", 900)
    world.run(14_000)
    assert len(world.actions(act.ReplyBegan)) == 2
    assert len(user_items(world)) == 2
    assert world.said()[1] == "You said: and in Oslo."
    assert all(a.status == "completed" for a in world.actions(act.ReplyEnded))


# -- greeting ----------------------------------------------------------------------------------------


def test_the_greeting_is_said_and_remembered(call: Call) -> None:
    world = call(greeting="Good morning. How can I help?")
    world.run(4_000)
    assert world.transcript() == [("assistant", "Good morning. How can I help?")]


def test_the_caller_speaks_while_the_greeting_plays(call: Call) -> None:
    world = call(greeting="Good morning, this is the harbour office. How can I help you today?")
    world.speak(900, "what time is it", 1_200)
    world.run(8_000)
    greeting, answer = world.transcript()[0], world.transcript()[1:]
    assert greeting[0] == "assistant"
    assert 0 < len(greeting[1]) < 40
    assert world.policy.greeting.startswith(greeting[1])
    assert answer == [("user", "what time is it"), ("assistant", "You said: what time is it.")]


def test_the_caller_speaks_before_the_greeting_is_audible(call: Call) -> None:
    world = call(greeting="Good morning.")
    world.delays.speak = 1_000
    world.speak(300, "what time is it", 1_200)
    world.run(8_000)
    assert world.transcript() == [
        ("user", "what time is it"),
        ("assistant", "You said: what time is it."),
    ]


def test_starting_twice_greets_once(call: Call) -> None:
    world = call(greeting="Good morning.")
    world.at(20, ev.Started())
    world.at(300, ev.Started())
    world.run(3_000)
    assert world.said() == ["Good morning."]


def test_a_transcript_names_the_stale_one_that_it_replaces(call: Call) -> None:
    world = call()
    world.hang("Transcribe")
    world.speak(600, "what time", 1_000)
    world.speak(2_100, "is it now", 800)
    world.run(3_500)
    asked = [action for action in world.actions(act.Transcribe) if not action.partial]
    assert len(asked) >= 2
    assert [action.replaces for action in asked] == [0, *(action.job for action in asked[:-1])]


def test_a_transcript_after_one_that_came_replaces_none(call: Call) -> None:
    world = call()
    world.speak(600, "what time is it", 1_000)
    world.speak(9_000, "and in Oslo", 1_000)
    world.run(12_000)
    asked = [action for action in world.actions(act.Transcribe) if not action.partial]
    assert len(asked) >= 2
    assert all(action.replaces == 0 for action in asked)
