"""How the agent talks to somebody who is learning the language: a paragraph for the prompt, and a pace for the voice.

The words are ours; the three levels are those of the talk protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from antiphon.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class LearnerLevel:
    paragraph: str
    """Added to the system prompt."""
    pace: float = 1.0
    """Of the agent's own pace."""


LEVELS: Mapping[str, LearnerLevel] = {
    "beginner": LearnerLevel(
        "The caller is a beginner who is learning this language. Use only very common words and short sentences of "
        "at most eight words. Say one thing at a time. Never use idioms or slang. When the caller makes a mistake, "
        "repeat the sentence correctly in a friendly way, then ask one easy question.",
        pace=0.85,
    ),
    "intermediate": LearnerLevel(
        "The caller is learning this language and manages everyday talk. Use common words and clear sentences of "
        "medium length. Explain a rare word when you need one. Correct only mistakes that matter, in passing, and "
        "keep the conversation going with a question.",
        pace=0.95,
    ),
    "advanced": LearnerLevel(
        "The caller is an advanced learner of this language. Talk as you would to a native speaker, with idioms and "
        "precise words. Point out unnatural wording briefly and offer a better one."
    ),
}


def check_level(name: str) -> str:
    """`name`, when there is such a level. Raises ProtocolError that names them all."""
    if name not in LEVELS:
        raise ProtocolError(f"unknown level {name[:40]!r}; the levels are {', '.join(LEVELS)}")
    return name


def level_prompt(prompt: str, level: str) -> str:
    """The system prompt for this level; as it is for none."""
    known = LEVELS.get(level)
    return f"{prompt}\n\n{known.paragraph}".strip() if known else prompt


def level_speed(speed: float, level: str) -> float:
    """The voice's speed for this level, within what text to speech takes (0.5 to 2)."""
    known = LEVELS.get(level)
    return max(0.5, min(speed * known.pace, 2.0)) if known else speed
