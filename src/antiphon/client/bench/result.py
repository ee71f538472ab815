"""What every result begins with: what was measured, when, where and with which versions."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from antiphon.errors import ConfigError

_PACKAGES = ("antiphon", "onnxruntime", "xllamacpp", "uvloop", "websockets", "numpy", "soxr")


def envelope(bench: str, settings: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """`found` first, for that is what is read; then how it came about."""
    return {
        "bench": bench,
        **found,
        "settings": dict(settings),
        "machine": machine(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor()


def save(result: Mapping[str, Any], chart: str, path: Path) -> list[Path]:
    """The JSON at `path`, the chart beside it as SVG -> what was written. Raises ConfigError."""
    image = path.with_suffix(".svg")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")
        image.write_text(chart)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None
    return [path, image]
