"""What a person at a terminal sees of a call: captions of both sides, who speaks, how loud the microphone is.

Fed with the server's messages. Where nothing can be redrawn (a pipe, a log file) there are captions only.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

_FLOORS = {
    "open": "nobody speaks",
    "caller": "you speak",
    "deciding": "you pause",
    "thinking": "agent thinks",
    "agent": "agent speaks",
    "contested": "both speak",
    "closing": "goodbye",
    "ended": "call is over",
}
_BARS = 12
_QUIETEST_DB = -60.0
_PER_SECOND = 12


def _silence() -> float:
    return float("-inf")


class LiveView:
    """`with LiveView(console) as view:` then `view.note(message)` for each message of the server."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.level_db: Callable[[], float] = _silence
        """-> the microphone's level now, dB below full scale."""
        self._floor = "open"
        self._you, self._item = "", ""
        self._agent, self._unheard = "", ""
        self._live = Live(
            console=console,
            get_renderable=self.line,
            refresh_per_second=_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        self._finish_you()
        self._finish_agent()

    def note(self, message: dict[str, Any]) -> None:
        """One message of the server; those that are nothing to see are ignored."""
        match message:
            case {"type": "floor", "state": str(state)}:
                self._floor = state
            case {"type": "transcript", "text": str(text)}:
                item = message.get("item", "")
                if item != self._item:
                    self._finish_you()
                self._you, self._item = text, item
            case {"type": "withdrawn", "item": self._item}:
                self._you = ""
            case {"type": "ai_text", "text": str(text)}:
                self._agent += text
            case {"type": "ai_audio_start"}:
                self._finish_you()
            case {"type": "heard", "unheard": str(text)}:
                self._unheard = text
            case {"type": "turn_complete"}:
                self._finish_you()
                self._finish_agent()
            case {"type": "error", "message": str(text)}:
                self._say(Text(f"server: {text}", style="yellow"))

    def line(self) -> Text:
        """The line that is redrawn: floor, level, and the caption that is still growing."""
        level_db = max(self.level_db(), _QUIETEST_DB)
        full = round(_BARS * (1 - level_db / _QUIETEST_DB))
        meter = "|" * full + "." * (_BARS - full)
        floor = _FLOORS.get(self._floor, self._floor)
        line = Text(f"{floor:14} [{meter}] {level_db:4.0f} dB  ", style="bold", end="")
        line.append(self._you or self._agent, style="not bold dim")
        line.truncate(max(self._console.width - 1, 1), overflow="ellipsis")
        return line

    def _finish_you(self) -> None:
        if self._you.strip():
            self._say(Text.assemble(("you:   ", "cyan"), self._you.strip()))
        self._you = ""

    def _finish_agent(self) -> None:
        text, unheard = self._agent.strip(), self._unheard.strip()
        self._agent = self._unheard = ""
        if not text:
            return
        heard = text.removesuffix(unheard) if unheard else text
        line = Text.assemble(("agent: ", "green"), heard)
        if len(heard) < len(text):
            # Struck out where that can be shown, in brackets where it cannot.
            cut = text[len(heard) :]
            line.append(cut if self._console.is_terminal else f"[unheard: {cut}]", style="strike")
        self._say(line)

    def _say(self, line: Text) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)
