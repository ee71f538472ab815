"""`python deploy/modal/deploy.py deploy|serve [voice-stack|phone|batch]`: the apps in the order that they need.

Only puts Modal's own command line together; it has to be installed and signed in (`pip install modal; modal setup`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
APPS = {
    "voice-stack": ("app.py",),
    "phone": ("phone_vllm.py", "phone_xtts.py", "phone_bot.py"),
    "batch": ("batch.py",),
}


def commands(action: str, which: str) -> list[list[str]]:
    """What is to be run. `serve` stays in the foreground, so that it takes the last app alone."""
    files = APPS[which] if action == "deploy" else APPS[which][-1:]
    return [[sys.executable, "-m", "modal", action, str(_HERE / name)] for name in files]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("deploy", "serve"))
    parser.add_argument("which", nargs="?", choices=tuple(APPS), default="voice-stack")
    chosen = parser.parse_args(arguments)
    for command in commands(chosen.action, chosen.which):
        print("+", *command[1:], flush=True)
        code = subprocess.run(command, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
