"""Every error a user of Antiphon can meet, and one way to suggest what was meant.

A message says what happened and what to do about it, in one line: the command line prints it as it is,
a websocket sends it as it is. This module knows no model, no protocol and no setting.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AntiphonError(Exception):
    """Something the owner or the caller can act on. `str(error)` is one line, fit to be shown."""


class ConfigError(AntiphonError):
    """A setting is unknown, missing or out of range."""


class SettingsError(ConfigError):
    """A file that holds settings or keys cannot be used as it is: nothing is begun with it."""


class AudioError(AntiphonError):
    """Audio that cannot be used: not audio at all, empty, truncated, too long."""


class ModelError(AntiphonError):
    """A model cannot be loaded, or failed while it worked."""


class WeightsError(ModelError):
    """A weight file could not be had, or is not the file its digest promises."""


class ProtocolError(AntiphonError):
    """A peer broke the rules of its protocol. The connection usually lives on."""


class ToolError(AntiphonError):
    """A function that the agent called cannot be run, or failed. The language model is told the line."""


class BusyError(AntiphonError):
    """The server holds as many calls as it can serve well."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` with the nearest of `known`, else what there is, else an empty string."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    if names:
        return f"; known: {', '.join(names)}"
    return ""
