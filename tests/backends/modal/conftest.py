"""The apps under the real `modal` package, as `modal deploy` imports them: by file, their folder on the path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "modal"
_NAMES = ("antiphon_modal", "app", "phone_vllm", "phone_xtts", "phone_bot", "batch", "deploy")


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A module of the folder, read anew with the variables that the test has set."""
    pytest.importorskip("modal")
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("VOICE_SERVICE_TOKEN", "between-services")

    def forget() -> None:
        for name in _NAMES:
            sys.modules.pop(name, None)

    forget()
    yield importlib.import_module
    forget()
