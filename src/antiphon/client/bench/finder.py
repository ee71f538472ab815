"""How many calls this machine holds with the models that it is set up with, and that number in its settings file.

The limit that is written is a fifth below what was measured: what else a machine does comes and goes. Knows the file as
text: what the owner wrote in it, comments too, stays as it is.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from antiphon.config import CONFIG_FILE
from antiphon.errors import ConfigError
from antiphon.files import MAX_SETTINGS_BYTES, read_text

SHARE = 0.8
_TABLE = re.compile(r"^\s*\[")


def limit_for(knee_calls: int) -> int:
    """Calls to be taken, with room to spare; at least one."""
    return max(int(knee_calls * SHARE), 1)


def settings_file() -> Path:
    """That a server started here would read."""
    return Path(os.environ.get("ANTIPHON_CONFIG") or CONFIG_FILE)


def write_limit(path: Path, calls: int) -> None:
    """`server.max_calls` in this file, which is made if it is not there. Raises ConfigError."""
    try:
        there = os.path.lexists(path)
        text = read_text(path, MAX_SETTINGS_BYTES, ConfigError) if there else ""
        changed = with_limit(text, calls)
        partial = path.with_name(f".{path.name}.part")
        partial.write_text(changed, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error}") from None


def with_limit(text: str, calls: int) -> str:
    """The settings with `max_calls` in their `[server]` table. Raises ConfigError where that cannot be told apart."""
    lines = text.splitlines(keepends=True)
    header = next((i for i, line in enumerate(lines) if _is_server(line)), None)
    setting = f"max_calls = {calls}\n"
    if header is None:
        gap = "\n" if text and not text.endswith("\n\n") else ""
        end = "\n" if text and not text.endswith("\n") else ""
        changed = f"{text}{end}{gap}[server]\n{setting}"
    else:
        end_of_table = next(
            (i for i in range(header + 1, len(lines)) if _TABLE.match(lines[i])), len(lines)
        )
        old = next(
            (i for i in range(header + 1, end_of_table) if re.match(r"\s*max_calls\s*=", lines[i])),
            None,
        )
        if old is None:
            if not lines[header].endswith("\n"):
                lines[header] += "\n"
            lines.insert(header + 1, setting)
        else:
            lines[old] = setting
        changed = "".join(lines)
    if _limit_in(changed) != calls:
        raise ConfigError(f"set server.max_calls = {calls} yourself; the file is not plain enough")
    return changed


def _is_server(line: str) -> bool:
    return re.match(r"\s*\[\s*server\s*\]", line) is not None


def _limit_in(text: str) -> object:
    try:
        return tomllib.loads(text).get("server", {}).get("max_calls")
    except (ValueError, RecursionError):
        return None
