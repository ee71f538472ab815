"""The phone bot's language model as an app of its own: vLLM's server behind its own key.

modal deploy deploy/modal/phone_vllm.py
VLLM_BASE_URL=https://WORKSPACE--self-hosted-vllm-serve.modal.run/v1
"""

from __future__ import annotations

import subprocess

import antiphon_modal as shared
import modal

app = modal.App("self-hosted-vllm")

MODEL = shared.variable("VLLM_MODEL", "meta-llama/Meta-Llama-3.1-8B-Instruct")
PORT = 8000

image = (
    modal.Image.from_registry(
        "nvidia/cuda:12.8.1-cudnn-devel-ubuntu24.04", add_python=shared.PYTHON
    )
    .entrypoint([])
    .uv_pip_install("vllm")
    .env({"HF_HOME": f"{shared.MODELS_DIR}/hub", **shared.NO_TELEMETRY})
    .add_local_python_source("antiphon_modal")
)


@app.function(
    image=image,
    gpu=shared.variable("VLLM_GPU", "A10G"),
    cpu=4.0,
    memory=24_576,
    env=shared.passed_on("VLLM_MODEL", "VLLM_GPU_MEMORY_UTILIZATION", "VLLM_MAX_MODEL_LEN"),
    # HF_TOKEN, for weights behind a licence, and VLLM_API_KEY.
    secrets=[modal.Secret.from_name("phone-bot", required_keys=["HF_TOKEN", "VLLM_API_KEY"])],
    volumes=shared.VOLUMES,
    scaledown_window=shared.SCALEDOWN_S,
    timeout=10 * shared.MINUTE_S,
    startup_timeout=15 * shared.MINUTE_S,
    max_containers=1,
)
@modal.concurrent(max_inputs=64)
@modal.web_server(PORT, startup_timeout=15 * shared.MINUTE_S)
def serve() -> None:
    """Modal waits for the port, and ends the process with the container."""
    subprocess.Popen(shared.vllm_command(MODEL, host="0.0.0.0", port=PORT))
