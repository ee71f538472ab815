"""`make test-backends`: an environment per group of back ends, made by uv, and that group's tests in it.

Standard library only. Environments lie in .backends/ and are kept; a group whose packages cannot be had is told at the
end and does not stop the others. With a GPU, uv chooses PyTorch's build; without one, UV_TORCH_BACKEND=cpu saves
gigabytes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
TABLE = Path(__file__).with_name("groups.toml")
_NO_TESTS = 5
"""pytest's exit status when there are none."""


def commands(name: str, group: Mapping[str, Any], uv: str) -> list[list[str]]:
    """What is run for `name`, in order."""
    place = ROOT / ".backends" / name
    python = str(place / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    extras = ",".join(group.get("extras", ()))
    install = [uv, "pip", "install", "--quiet", "--python", python]
    steps = [
        [uv, "venv", "--quiet", "--allow-existing", str(place)],
        [
            *install,
            "--editable",
            f".[{extras}]" if extras else ".",
            "pytest",
            *group.get("needs", ()),
        ],
    ]
    if group.get("no_deps"):
        steps.append([*install, "--no-deps", *group["no_deps"]])
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/backends/{name}"]
    return [*steps, tests]


def main(uv: str, asked: list[str]) -> int:
    table: dict[str, dict[str, Any]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    unknown = set(asked) - set(table)
    if unknown:
        print(f"no group {', '.join(sorted(unknown))}; there are: {', '.join(table)}")
        return 2
    results: dict[str, str] = {}
    for name in asked or table:
        *setup, tests = commands(name, table[name], uv)
        print(f"== {name}", flush=True)
        if any(subprocess.run(step, cwd=ROOT).returncode for step in setup):
            results[name] = "not run: its packages cannot be installed here"
            continue
        status = subprocess.run(tests, cwd=ROOT).returncode
        results[name] = {0: "passed", _NO_TESTS: "not run: it needs another machine"}.get(
            status, "FAILED"
        )
    print("\n".join(["", *(f"{name:14} {result}" for name, result in results.items())]))
    return 1 if "FAILED" in results.values() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
