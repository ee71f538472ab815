"""Memory of the process: garbage collection tuned once everything long-lived exists, and freed memory given back."""

from __future__ import annotations

import gc
import sys

_SWITCH_S = 0.001
"""A model's thread that has a result gets its turn after this. Python's own 5 ms, three times a batch, is what bounds
voice activity detection with a hundred calls."""


def tune_process() -> None:
    """Collect what loading left behind, then exempt what is alive from every later collection.

    A full collection over loaded models takes tens of milliseconds, which a caller would hear. Threads change places
    more often than Python's default, for the event loop's share is small pieces of work. Ended calls are small cycles:
    a full collection, of what came after the models, is due after some thousand of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 5)
    sys.setswitchinterval(_SWITCH_S)
