"""Antiphon: a self-hosted voice agent server. Speak and be answered, on your own machines.

Everything here is imported on first use: `import antiphon` itself is instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from antiphon import telemetry

telemetry.turn_off()

if TYPE_CHECKING:
    from antiphon.audio.compress import compress as compress
    from antiphon.audio.compress import compression_ratio as compression_ratio
    from antiphon.audio.compress import decompress as decompress
    from antiphon.local import Engine as Engine
    from antiphon.local import process_audio as process_audio
    from antiphon.models.registry import register_model as register_model

_HOME = {
    "Engine": "antiphon.local",
    "process_audio": "antiphon.local",
    "compress": "antiphon.audio.compress",
    "decompress": "antiphon.audio.compress",
    "compression_ratio": "antiphon.audio.compress",
    "register_model": "antiphon.models.registry",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'antiphon' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
