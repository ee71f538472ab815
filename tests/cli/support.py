"""The real command in a process of its own, with scripted models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

LIMIT_S = 60
KINDS = ("vad", "turn", "stt", "llm", "tts")
SCRIPTED = "[models]\n" + "".join(f'{kind} = ["scripted"]\n' for kind in KINDS)
SCRIPTED += '[models.options.stt.scripted.tones]\n440 = "what time is it"\n'
SCRIPTED += '[models.options.llm.scripted.rules]\ntime = "It is noon."\n'


@dataclass(slots=True)
class Command:
    """Runs in an empty folder, without this machine's settings."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        ours = ("ANTIPHON_", "HF_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        nowhere = {"ANTIPHON_HOME": str(self.folder / "home"), "ANTIPHON_OFFLINE": "1"}
        return {**inherited, **nowhere, **self.variables}

    def __call__(
        self, *arguments: str | Path, before: Callable[[], None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "antiphon", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            preexec_fn=before,
        )

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "antiphon", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
