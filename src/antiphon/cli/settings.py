"""What the commands share: settings with the command line's word on top, weights with progress, logging."""

from __future__ import annotations

import logging
from typing import Any

from rich.console import Console

from antiphon.cli.models import progress_for
from antiphon.config import Settings, load
from antiphon.errors import ConfigError
from antiphon.models.store import WeightStore
from antiphon.observe import logs


def settings_with(sets: list[str], **named: Any) -> Settings:
    """`sets`: `--set section.name=value` as typed. `named`: options of a command (dots as double underscores)."""
    overrides: dict[str, Any] = {}
    for item in sets:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise ConfigError(
                f"--set takes name=value, for instance server.port=9000; got {item!r}"
            )
        overrides[name.strip()] = value
    for name, value in named.items():
        if value is not None:
            overrides[name.replace("__", ".")] = value
    return load(overrides)


def weight_store() -> WeightStore:
    """Fetches with bars on a terminal, with a line per file elsewhere."""
    return WeightStore(progress=progress_for(Console(stderr=True)))


def log_to_stderr(debug: bool, form: str = "pretty") -> None:
    """For a server: a line per event, with its time and its call. `form`: `pretty` or `json`."""
    logs.setup(form, level=logging.DEBUG if debug else logging.INFO)


def quiet_log(debug: bool) -> None:
    """For a command that has a result, or one line that says why not: warnings would stand in between."""
    log_to_stderr(debug)
    if not debug:
        logging.getLogger().setLevel(logging.CRITICAL)
