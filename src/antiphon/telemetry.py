"""Libraries that report to their makers are told not to, before the first of them is imported.

`import antiphon` runs this module before anything else, so it holds for every command, service and library call, and
the processes they start inherit it. A variable that the owner has set to something keeps its value.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

OFF = {
    # What every program is asked that honours https://donottrack.sh
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "1",
    # onnxruntime: device id, models and processor to mobile.events.data.microsoft.com; read at import.
    "ORT_DISABLE_TELEMETRY": "1",
    # huggingface_hub, transformers, diffusers, and hf_xet in native code
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Coqui's trainer, which its voices import
    "TRAINER_TELEMETRY": "0",
    # What comes along with the heavy extras
    "GRADIO_ANALYTICS_ENABLED": "False",
    "WANDB_MODE": "disabled",
    "WANDB_ERROR_REPORTING": "false",
    "NEMO_ONE_LOGGER_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    # pip asks the index whether there is a newer pip
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
"""Environment variables and the value that means "report nothing". `DO_NOT_TRACK` and the like are not enough: most
libraries know only their own."""


def turn_off(variables: MutableMapping[str, str] = os.environ) -> None:
    """Set what the owner has not set. An empty value counts as not set: onnxruntime reports all the same then."""
    for name, value in OFF.items():
        if not variables.get(name):
            variables[name] = value
