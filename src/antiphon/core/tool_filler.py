"""What is said while a function of ours keeps the user waiting: when, and with which words."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.core.policy import Policy


@dataclass(frozen=True, slots=True)
class _Wait:
    began_ms: int
    filler: str


class ToolFillers:
    """At most one filler per function call; one filler serves all that are running."""

    def __init__(self) -> None:
        self._waits: dict[str, _Wait] = {}

    def begin(self, call_id: str, filler: str, now_ms: int) -> None:
        """This call is running; `filler` are words of its own, empty for the policy's."""
        self._waits[call_id] = _Wait(now_ms, filler)

    def end(self, call_id: str) -> None:
        """It has returned. Unknown ids are ignored."""
        self._waits.pop(call_id, None)

    def due_ms(self, policy: Policy, quiet_since_ms: int) -> int | None:
        """When a filler is due, if nobody speaks before. `quiet_since_ms`: when the floor became open."""
        if policy.tool_filler_after_ms <= 0 or not policy.speak_replies:
            return None
        began_ms = [w.began_ms for w in self._waits.values() if w.filler or policy.tool_filler]
        if not began_ms:
            return None
        return max(min(began_ms), quiet_since_ms) + policy.tool_filler_after_ms

    def take(self, policy: Policy) -> str:
        """What to say now: the words of the function that has run longest. Nothing more is owed for any of them."""
        said = [w.filler or policy.tool_filler for w in self._waits.values()]
        self._waits.clear()
        return next(filter(None, said), "")
