"""Every error a user of Antiphon can meet, and one way to suggest what was meant.

A message says what happened and what to do about it, in one line: the command line prints it as it is,
a websocket sends it as it is. This module knows no model, no protocol and no setting.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


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


class NotReadyError(ModelError):
    """No request can be served for now: models still load, or none of a kind works. The line is fit for callers."""


class RequestError(AntiphonError):
    """A request that cannot be served as it is, whichever model is asked: nothing is wrong with the model.

    The line is fit for callers. `param` is the field of the request that is wrong, where that is known;
    `code` is a stable word for programs, as in OpenAI's errors.
    """

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.param, self.code)


class WeightsError(ModelError):
    """A weight file could not be had, or is not the file its digest promises."""


class ProtocolError(AntiphonError):
    """A peer broke the rules of its protocol. The connection usually lives on."""


class ToolError(AntiphonError):
    """A function that the agent called cannot be run, or failed. The language model is told the line."""


class BusyError(AntiphonError):
    """The server holds as many calls as it can serve well."""


def told(error: Exception, reference: str = "") -> str:
    """What a caller is told of an error: one sentence.

    What a model or a remote server said of its failure may name hosts, files and quotas: that is for the log, and
    `reference` (the id of the call or request) is what to look for there.
    """
    if not isinstance(error, ModelError) or isinstance(error, NotReadyError):
        return str(error)
    return f"a model failed; {see_log(reference)}"


def see_log(reference: str) -> str:
    """Where the operator finds more. `reference` may be empty."""
    look = f" (look for {reference})" if reference else ""
    return f"the server's log says why{look}"


def suggest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` with the nearest of `known`, else what there is, else an empty string."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    if names:
        return f"; known: {', '.join(names)}"
    return ""
