"""What back ends on PyTorch share: device and dtype, and errors that say what to install.

Imports torch only when asked.
"""

from __future__ import annotations

from typing import Any

from antiphon.errors import ModelError
from antiphon.models.devices import choose_device

_DTYPES = ("auto", "float16", "bfloat16", "float32")


def device_and_dtype(asked: str, dtype: str, *, model: str) -> tuple[str, Any]:
    """-> torch device name, torch.dtype. `auto`: the best device; bfloat16 on CUDA, float16 on MPS, float32 on a CPU.

    Raises ModelError for `model`.
    """
    if dtype not in _DTYPES:
        raise ModelError(f"{model}: unknown dtype {dtype!r}; choose one of {', '.join(_DTYPES)}")
    device = choose_device(asked, ("cuda", "mps", "cpu"), model=model)
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        if asked == "auto":
            device = "cpu"  # a driver is there, but this build of torch has no CUDA
        else:
            raise ModelError(
                f"{model}: the installed torch has no CUDA; install the CUDA build, or set device to cpu"
            )
    best = {"cuda": torch.bfloat16, "mps": torch.float16}.get(device.partition(":")[0])
    chosen = (best or torch.float32) if dtype == "auto" else getattr(torch, dtype)
    return device, chosen


def missing(name: str, extra: str, error: ImportError) -> ModelError:
    """The error of a back end whose library cannot be imported."""
    return ModelError(f"{name} cannot be imported ({error}); pip install 'antiphon[{extra}]'")
