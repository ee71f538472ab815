"""Functions that the language model may call and that we run: what one is, and running it safely.

Knows no protocol and no call: a door, the configuration or an MCP server brings tools, the session runs them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Run = Callable[[Mapping[str, Any]], Awaitable[str]]
"""Arguments by name -> what the language model is told."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One function. `run` is called once per call of the model, on the event loop, and must not block it."""

    name: str
    description: str
    run: Run
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    """JSON schema of the arguments: an object."""
    time_limit_s: float = 20.0
    """After this the model is told that the function did not answer."""
    filler: str = ""
    """Said when the function is slow; empty: the agent's own."""

    def spec(self) -> dict[str, Any]:
        """The function as OpenAI-compatible endpoints declare it."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }
