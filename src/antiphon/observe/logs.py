"""Structured logs: JSON lines or pretty ones, the call in every line, secrets in none.

`in_call` names the call for everything that is logged inside it, in tasks and timers that are started there too. Knows
no session: a turn reaches the log as its record.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TextIO

from antiphon.core.turn_record import TurnRecord
from antiphon.errors import ConfigError, suggest
from antiphon.observe.redact import redact
from antiphon.observe.turn_figures import stages, wasted_guesses

FORMATS = ("pretty", "json")
_NOISY = ("httpx", "httpcore", "openai", "urllib3", "asyncio")
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "call"}
"""What every log record has; the rest came in `extra`."""
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

_call: ContextVar[str] = ContextVar("antiphon_call", default="")

log = logging.getLogger("antiphon.turns")


@contextmanager
def in_call(call_id: str) -> Iterator[None]:
    """What is logged inside belongs to this call."""
    before = _call.get()
    _call.set(call_id)
    try:
        yield
    finally:
        _call.set(before)  # not a token: an abandoned generator is ended in another context


def current_call() -> str:
    """The call that is being worked for; empty outside of any."""
    return _call.get()


def setup(
    form: str = "pretty", *, level: int = logging.INFO, stream: TextIO | None = None
) -> logging.Handler:
    """Send the process's logs to `stream` (stderr), and nowhere else -> the handler.

    `form`: `pretty` or `json`. Raises ConfigError for another.
    """
    if form not in FORMATS:
        raise ConfigError(f"there is no log format {form!r}{suggest(form, FORMATS)}")
    handler = logging.StreamHandler(stream or sys.stderr)
    colour = form == "pretty" and handler.stream.isatty()
    handler.setFormatter(JsonFormatter() if form == "json" else PrettyFormatter(colour=colour))
    handler.addFilter(_name_call)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    return handler


def _name_call(record: logging.LogRecord) -> bool:
    """Where the line was written, not where it is formatted: a handler may live on another thread."""
    if not hasattr(record, "call"):
        record.call = _call.get()
    return True


class _Formatter(logging.Formatter):
    """What both forms share. Redaction is done on the finished text, so that no argument and no traceback slips by."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a slip in a log call must not lose the line
            message = f"{record.msg} {record.args!r}"
        return self.compose(record, redact(message))

    def compose(self, record: logging.LogRecord, message: str) -> str:
        raise NotImplementedError

    def trouble(self, record: logging.LogRecord) -> str:
        """The traceback, if there is one."""
        text = self.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
        if record.stack_info:
            text = f"{text}\n{record.stack_info}".strip()
        return redact(text)


class JsonFormatter(_Formatter):
    """One object a line: time, level, logger, message, call, the fields of `extra`, and error for a traceback."""

    def compose(self, record: logging.LogRecord, message: str) -> str:
        fields: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if call := getattr(record, "call", ""):
            fields["call"] = call
        for name, value in _extra(record).items():
            fields.setdefault(name, _clean(value))
        if trouble := self.trouble(record):
            fields["error"] = trouble
        return json.dumps(fields, ensure_ascii=False, default=lambda v: redact(str(v)))


class PrettyFormatter(_Formatter):
    """For people: time, level, call, message; the traceback below. Times are local."""

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def compose(self, record: logging.LogRecord, message: str) -> str:
        level = f"{record.levelname:<7}"
        if self._colour and record.levelname in _COLOURS:
            level = f"\x1b[{_COLOURS[record.levelname]}m{level}\x1b[0m"
        call = getattr(record, "call", "")
        where = record.name.removeprefix("antiphon.")
        parts = [_time(record).astimezone().strftime("%H:%M:%S.%f")[:-3], level]
        parts += [f"[{call[:8]}]"] if call else []
        line = f"{' '.join(parts)} {where}: {_one_line(message)}"
        trouble = self.trouble(record)
        return f"{line}\n{trouble}" if trouble else line


def log_turn(record: TurnRecord, *, text: bool = False) -> None:
    """A line for a turn that has ended, with its figures as fields. `text`: and what both sides said."""
    found = {name: value for name, value in asdict(stages(record)).items() if value is not None}
    fields: dict[str, Any] = {
        "turn": record.number,
        "reply": record.reply,
        "kind": record.kind,
        "status": record.status,
        "interrupted": record.interrupted,
        "false_alarms": record.false_interruptions,
        "speculation_used": record.preemptive_used,
        "speculations_wasted": wasted_guesses(record),
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "characters": record.characters,
        "played_ms": record.played_ms,
        **found,
    }
    if text:
        fields |= {"user_text": record.user_text, "heard_text": record.heard_text}
    log.info("%s", _sentence(record, found.get("voice_to_voice_ms")), extra=fields)


def _sentence(record: TurnRecord, delay_ms: int | None) -> str:
    name = f"turn {record.number}" if record.number else record.kind
    words = [name, record.status or "none"]
    if delay_ms is not None:
        words.append(f"after {delay_ms} ms")
    if record.interrupted:
        words.append(f"(interrupted at {record.played_ms} of {record.audio_ms} ms)")
    return " ".join(words)


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _PLAIN}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(key)): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return value


def _one_line(text: str) -> str:
    """What a client sent must not look like a line of ours, nor move the cursor of a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
