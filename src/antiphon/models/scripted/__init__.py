"""Models that do what they were told: for the tests of those who build agents, and for our own.

Each is chosen by the name `scripted` and set up with the options in its docstring, all of which can
be written in a settings file. They are deterministic, need no weights and take no time unless they
are given some. They know nothing of calls, and nothing of the models that they stand for.
"""

from antiphon.models.scripted.hearing import ScriptedStt, ScriptedTurnDetector, ScriptedVad, tone
from antiphon.models.scripted.pace import Pace, PaceOptions
from antiphon.models.scripted.remote import RemoteLlm, RemoteStt, RemoteTts
from antiphon.models.scripted.speaking import ScriptedLlm, ScriptedTts

__all__ = [
    "Pace",
    "PaceOptions",
    "RemoteLlm",
    "RemoteStt",
    "RemoteTts",
    "ScriptedLlm",
    "ScriptedStt",
    "ScriptedTts",
    "ScriptedTurnDetector",
    "ScriptedVad",
    "tone",
]
