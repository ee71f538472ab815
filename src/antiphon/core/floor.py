"""Who holds the floor: every state of a call, every cause of a change, all transitions in one table.

Which fact brings a cause about is the matter of `decide`. docs/state-diagram.md shows both tables.
"""

from __future__ import annotations

from enum import StrEnum


class Floor(StrEnum):
    OPEN = "open"
    """Nobody speaks; the idle timer runs."""
    CALLER = "caller"
    """The user is speaking."""
    DECIDING = "deciding"
    """The user fell silent. A reply is being prepared, unheard; the turn may go on."""
    THINKING = "thinking"
    """A reply is due and nothing of it is audible yet."""
    AGENT = "agent"
    """The agent's voice is playing."""
    OVERLAP = "overlap"
    """Overlapping speech: output is paused while we find out whether the user means to interrupt."""
    CLOSING = "closing"
    """The goodbye is being said; then the call ends."""
    ENDED = "ended"
    """Final."""


class Cause(StrEnum):
    SPEECH = "user starts to speak"
    PAUSE = "user falls silent"
    RESUME = "user goes on"
    TURN_TAKEN = "turn ends, reply due"
    TURN_KEPT = "turn ends, no reply wanted"
    TURN_EMPTY = "nothing was said"
    REPLY_WANTED = "agent is to speak"
    AUDIBLE = "first audio of the reply"
    REPLY_OVER = "reply played out or given up"
    INTERRUPTED = "interruption is meant, user still speaking"
    INTERRUPTED_BRIEFLY = "interruption is meant, user silent again"
    FALSE_INTERRUPTION = "false interruption"
    GOODBYE = "agent says goodbye"
    HANG_UP = "call ends"


_F, _C = Floor, Cause

TRANSITIONS: dict[Floor, dict[Cause, Floor]] = {
    _F.OPEN: {
        _C.SPEECH: _F.CALLER,
        _C.PAUSE: _F.DECIDING,  # a commit by the client, without speech detection
        _C.REPLY_WANTED: _F.THINKING,
        _C.GOODBYE: _F.CLOSING,
        _C.HANG_UP: _F.ENDED,
    },
    _F.CALLER: {
        _C.PAUSE: _F.DECIDING,
        _C.TURN_EMPTY: _F.OPEN,
        _C.GOODBYE: _F.CLOSING,
        _C.HANG_UP: _F.ENDED,
    },
    _F.DECIDING: {
        _C.RESUME: _F.CALLER,
        _C.TURN_TAKEN: _F.THINKING,
        _C.TURN_KEPT: _F.OPEN,
        _C.TURN_EMPTY: _F.OPEN,
        _C.REPLY_WANTED: _F.THINKING,
        _C.GOODBYE: _F.CLOSING,
        _C.HANG_UP: _F.ENDED,
    },
    _F.THINKING: {
        _C.SPEECH: _F.CALLER,
        _C.AUDIBLE: _F.AGENT,
        _C.REPLY_OVER: _F.OPEN,
        _C.GOODBYE: _F.CLOSING,
        _C.HANG_UP: _F.ENDED,
    },
    _F.AGENT: {
        _C.SPEECH: _F.OVERLAP,
        _C.REPLY_OVER: _F.OPEN,
        _C.GOODBYE: _F.CLOSING,
        _C.HANG_UP: _F.ENDED,
    },
    _F.OVERLAP: {
        _C.INTERRUPTED: _F.CALLER,
        _C.INTERRUPTED_BRIEFLY: _F.DECIDING,
        _C.FALSE_INTERRUPTION: _F.AGENT,
        _C.REPLY_OVER: _F.CALLER,  # cancelled by the client while the user speaks
        _C.GOODBYE: _F.CLOSING,
        _C.HANG_UP: _F.ENDED,
    },
    _F.CLOSING: {
        _C.SPEECH: _F.CALLER,  # the user is back before the line was cut
        _C.HANG_UP: _F.ENDED,
    },
    _F.ENDED: {},
}


def mermaid() -> str:
    """The transition table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Floor.OPEN}"]
    for state, row in TRANSITIONS.items():
        lines += [f"    {state} --> {target}: {cause}" for cause, target in row.items()]
    lines.append(f"    {Floor.ENDED} --> [*]")
    return "\n".join(lines)
