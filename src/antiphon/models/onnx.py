"""One way to open an ONNX model on the CPU, shared by all embedded back ends.

Knows thread counts and error messages. Does not know any model, its inputs or where its file came
from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from antiphon.errors import ModelError

_ERRORS_ONLY = 3


def open_session(path: Path, *, threads: int = 1, prepack: bool = True) -> Any:
    """An `onnxruntime.InferenceSession` for `path` (.onnx or .ort) on the CPU.

    `threads`: threads inside one operator. They never spin while idle: a spinning thread takes the
    core from the other models of a call. `prepack=False` keeps weights in their file layout: less
    memory, slower. Raises ModelError if onnxruntime is missing or the file is not a model it can
    read.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ModelError(
            "onnxruntime cannot be imported; reinstall with: pip install onnxruntime"
        ) from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many unrelated types here
        raise ModelError(
            f"{path.name} is not a model that onnxruntime can read ({_reason(error)}); "
            "delete it and fetch it again: antiphon models pull"
        ) from error


def weight_file(files: Any, name: str, entry: str) -> Path:
    """`files[name]`, or ModelError that names the catalogue entry which lacks it."""
    try:
        return Path(files[name])
    except KeyError as error:
        raise ModelError(
            f"the weights {entry!r} have no file {name}; choose weights made for this back end"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of an error, short enough for one line of log."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:160]
