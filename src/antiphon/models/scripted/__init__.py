"""Models that do what they were told: for the tests of those who build agents, and for our own.

Each is chosen by the name `scripted` and set up with the options in its docstring, all of which can
be written in a settings file. They are deterministic, need no weights and take no time unless they
are given some. They know nothing of calls, and nothing of the models that they stand for.
"""

from antiphon.models.scripted.fixed_delay import RemoteLlm, RemoteStt, RemoteTts
from antiphon.models.scripted.generation import ScriptedLlm, ScriptedTts
from antiphon.models.scripted.pace import Pace, PaceOptions
from antiphon.models.scripted.recognition import (
    ScriptedStt,
    ScriptedTurnDetector,
    ScriptedVad,
    tone,
)

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
