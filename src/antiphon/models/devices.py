"""On what a model runs: the device that was asked for, or the best that there is.

Asks drivers and the platform, never a framework: nothing heavy is imported to find out that there is no GPU.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import cache

from antiphon.errors import ModelError

DEVICES = ("cuda", "mlx", "mps", "cpu")
"""Best first."""


@cache
def cuda_devices() -> int:
    """NVIDIA GPUs that the driver shows. 0 without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    finally:
        pynvml.nvmlShutdown()


def apple_silicon() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def choose_device(asked: str, can: Sequence[str], *, model: str) -> str:
    """`asked`: `auto` or one of DEVICES, an index after a colon if wanted (`cuda:1`). `can`: what the back end runs on.

    Raises ModelError, for `model`, when it cannot be had.
    """
    if asked == "auto":
        return next(device for device in DEVICES if device in can and _there(device))
    kind = asked.partition(":")[0]
    if kind not in can:
        raise ModelError(f"{model} runs on {', '.join(can)}, not on {asked!r}; set its device")
    if not _there(kind):
        raise ModelError(f"{model}: there is no {kind} device here; set device to auto or cpu")
    return asked


def _there(device: str) -> bool:
    if device == "cuda":
        return cuda_devices() > 0
    return device == "cpu" or apple_silicon()
