"""Process-wide settings that keep turns even: set once, when everything long-lived exists."""

from __future__ import annotations

import gc


def tune_process() -> None:
    """Collect what loading left behind, then exempt what is alive from every later collection.

    A full collection over loaded models takes tens of milliseconds, which a caller would hear.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
