"""One way to open and to run an ONNX model on the CPU, shared by all embedded back ends.

Knows thread counts and error messages. Does not know any model, its inputs or where its file came
from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from antiphon.errors import ModelError

_ERRORS_ONLY = 3
_REASON_CHARACTERS = 160


def open_session(path: Path, *, threads: int = 1) -> Any:
    """An `onnxruntime.InferenceSession` for `path` (.onnx or .ort) on the CPU.

    `threads`: inside one operator. They never spin while idle: a spinning thread takes the core
    from the other models of a call. Raises ModelError if onnxruntime is missing or the file is not
    a model it can read.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise ModelError(
            "onnxruntime cannot be imported; reinstall with: pip install onnxruntime"
        ) from error
    if os.environ.get("ORT_DISABLE_TELEMETRY") == "1":  # for a program that imported it before us
        ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"onnxruntime cannot read {path.name} ({_reason(error)}); if it is damaged, remove and "
            "fetch it again: antiphon models verify, antiphon models pull"
        ) from error


def run(
    name: str, session: Any, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
) -> list[Any]:
    """The `outputs` (None: all) of one run of the session of the back end `name`.

    Raises ModelError when it is not loaded (`session` is None) or the run fails.
    """
    if session is None:
        raise ModelError(f"{name} is not loaded; call load() first")
    try:
        values: list[Any] = session.run(outputs, inputs)
    except Exception as error:
        raise ModelError(f"{name} failed: {_reason(error)}") from error
    return values


def weight_file(files: Mapping[str, Path], name: str, entry: str) -> Path:
    """`files[name]`, or ModelError that names the catalogue entry which lacks it."""
    try:
        return files[name]
    except KeyError as error:
        raise ModelError(
            f"the weights {entry!r} have no file {name}; choose weights made for this back end"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of an error, short enough for one line of log."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:_REASON_CHARACTERS]
