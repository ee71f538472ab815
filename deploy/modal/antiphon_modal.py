"""What the Modal apps share: the image, the volume with the weights, the secrets, and how a service is put together.

Modal imports this file on the deploying machine and again in every container, where there is no repository and where
`/opt/antiphon` holds what was copied into the image.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modal

if TYPE_CHECKING:
    from fastapi import FastAPI

_HERE = Path(__file__).resolve()
ROOT = _HERE.parents[2] if len(_HERE.parents) > 2 else _HERE.parent
"""The repository; in a container it only stands for it."""
PYTHON = "3.12"
MODELS_DIR = "/models"
MODELS = modal.Volume.from_name("voice-models", create_if_missing=True)
VOLUMES: dict[str | os.PathLike[str], Any] = {MODELS_DIR: MODELS}

MINUTE_S = 60
SCALEDOWN_S = 20 * MINUTE_S
CALL_S = 60 * MINUTE_S
"""Longest call: Modal ends an input, a websocket is one, at the function's `timeout`."""
MAX_MESSAGE_BYTES = (2 << 20) - 1
"""Modal's front end takes websocket messages below 2 MiB, without compression."""
_MAX_AUDIO_BYTES = MAX_MESSAGE_BYTES * 3 // 4 - 4096
"""So much as Base64 in a JSON event stays below that."""
MAX_REQUEST_S = 140
"""Modal answers for a function after 150 s, with a redirect that not every client follows."""

LIMITS: Mapping[str, Any] = {
    "server.max_call_s": CALL_S,
    "server.max_message_bytes": MAX_MESSAGE_BYTES,
    "server.max_request_s": MAX_REQUEST_S,
    "server.log_format": "json",
    "realtime.max_append_bytes": _MAX_AUDIO_BYTES,
    "realtime.max_kept_audio_bytes": _MAX_AUDIO_BYTES,
}
"""Settings of everything that is served through Modal's front end."""

SERVICE_TOKEN = "VOICE_SERVICE_TOKEN"  # noqa: S105 - the name of a variable
PROXY_KEY, PROXY_SECRET = "VOICE_PROXY_KEY", "VOICE_PROXY_SECRET"
SERVICE_SECRET = modal.Secret.from_name("voice-auth", required_keys=[SERVICE_TOKEN])
"""Both sides of a connection between services have it."""
PROXY_SECRETS = modal.Secret.from_name("voice-proxy", required_keys=[PROXY_KEY, PROXY_SECRET])
"""A proxy-auth token of the workspace: only who calls services has it."""

NO_TELEMETRY: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
"""For what runs without `import antiphon`, which sets these and more."""

_NOT_COPIED = ["**/__pycache__", "**/*.pyc"]


def image(
    *extras: str,
    cuda: bool = False,
    packages: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> modal.Image:
    """Antiphon from this repository on the locked packages, with some of its extras and other `packages`.

    `cuda`: with NVIDIA's user-space libraries, for back ends that do not bring them with PyTorch.
    """
    base = (
        modal.Image.from_registry(
            "nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04", add_python=PYTHON
        ).entrypoint([])
        if cuda
        else modal.Image.debian_slim(python_version=PYTHON)
    )
    wanted = f"/opt/antiphon[{','.join(extras)}]" if extras else "/opt/antiphon"
    built = base.uv_pip_install(
        requirements=[str(ROOT / "requirements.lock")], extra_options="--require-hashes"
    ).add_local_dir(ROOT / "src", "/opt/antiphon/src", copy=True, ignore=_NOT_COPIED)
    for name in ("pyproject.toml", "LICENSE", "NOTICE", "README.md"):
        built = built.add_local_file(ROOT / name, f"/opt/antiphon/{name}", copy=True)
    return (
        built.run_commands(
            f"python -m pip install --no-cache-dir {' '.join([repr(wanted), *packages])}"
        )
        .env({"ANTIPHON_HOME": MODELS_DIR, "HF_HOME": f"{MODELS_DIR}/hub"})
        .env({**NO_TELEMETRY, **(variables or {})})
        .add_local_python_source("antiphon_modal")
    )


def variable(name: str, default: str) -> str:
    """A choice of who deploys, read on their machine and, by `passed_on`, again in the containers."""
    return os.environ.get(name) or default


def passed_on(*names: str) -> dict[str, str | None]:
    """For `env=`: those of these variables that are set where this runs."""
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def keep_weights() -> None:
    """What was fetched is there for the next container. Blocking."""
    if not modal.is_local():
        MODELS.commit()


# --- services ---------------------------------------------------------------------------------------


def service(kind: str, settings: Mapping[str, Any]) -> FastAPI:
    """The application of `antiphon service KIND`, asking for the token of `voice-auth`. Raises ConfigError."""
    from antiphon.config import load
    from antiphon.models.ports import Kind
    from antiphon.models.store import WeightStore
    from antiphon.server.service_app import create_service

    token = os.environ[SERVICE_TOKEN]
    chosen = load({**LIMITS, **settings, "security.api_key": token})
    return create_service(chosen, Kind(kind), WeightStore())


def warm_imports() -> None:
    """Everything that is the same in each container, before the memory snapshot is taken. Blocking."""
    import onnxruntime  # noqa: F401
    import openai  # noqa: F401

    import antiphon.models.store
    import antiphon.server.app  # noqa: F401


def client_options(urls: Mapping[str, str]) -> dict[str, Any]:
    """Settings of an orchestrator without any model but voice activity and end of turn.

    `urls`: of the services `stt`, `llm` and `tts`, as Modal gives them.
    """
    found: dict[str, Any] = {}
    for kind, url in urls.items():
        found[f"models.{kind}"] = "openai"
        found[f"models.options.{kind}.openai"] = {
            "base_url": f"{url.rstrip('/')}/v1",
            "api_key": os.environ[SERVICE_TOKEN],
            "extra_headers": _proxy_headers(),
        }
    return found


def until_ready(urls: Mapping[str, str], limit_s: float) -> None:
    """Wake the services up, all at once, and wait for their models. Blocking. Raises TimeoutError."""
    end_s = time.monotonic() + limit_s
    with ThreadPoolExecutor(len(urls)) as threads:
        ready = list(threads.map(lambda url: _becomes_ready(url, end_s), urls.values()))
    missing = [
        f"{kind} at {url}"
        for (kind, url), well in zip(urls.items(), ready, strict=True)
        if not well
    ]
    if missing:
        raise TimeoutError(
            f"not ready within {limit_s:g} s: {', '.join(missing)}; see the logs of the services"
        )


def _becomes_ready(url: str, end_s: float) -> bool:
    import httpx

    with httpx.Client(headers=_proxy_headers(), timeout=30, follow_redirects=True) as http:
        while time.monotonic() < end_s:
            try:
                if http.get(f"{url.rstrip('/')}/ready").status_code == 200:
                    return True
            except httpx.HTTPError:
                pass  # it is being started
            time.sleep(0.5)
    return False


def _proxy_headers() -> dict[str, str]:
    """What Modal's front end asks for at addresses with `requires_proxy_auth`; nothing where there is no token."""
    found = {"Modal-Key": os.environ.get(PROXY_KEY), "Modal-Secret": os.environ.get(PROXY_SECRET)}
    return {name: value for name, value in found.items() if value}


# --- vLLM -------------------------------------------------------------------------------------------

VLLM_PORT = 8001
VLLM_URL = f"http://127.0.0.1:{VLLM_PORT}/v1"


def vllm_command(model: str, *, host: str = "127.0.0.1", port: int = VLLM_PORT) -> list[str]:
    """vLLM's own server. Its key, if it has one, is in VLLM_API_KEY."""
    command = ["vllm", "serve", model, "--host", host, "--port", str(port)]
    command += ["--gpu-memory-utilization", variable("VLLM_GPU_MEMORY_UTILIZATION", "0.9")]
    return [*command, "--max-model-len", variable("VLLM_MAX_MODEL_LEN", "8192")]


def start_vllm(model: str, limit_s: float) -> subprocess.Popen[bytes]:
    """Blocks until it answers. Raises RuntimeError when it ends first, TimeoutError."""
    import httpx

    process = subprocess.Popen(vllm_command(model))
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise RuntimeError(f"vllm ended with code {process.returncode}; its log says why")
        try:
            if httpx.get(f"{VLLM_URL.removesuffix('/v1')}/health", timeout=5).status_code == 200:
                return process
        except httpx.HTTPError:
            pass  # it is loading
        time.sleep(0.5)
    end_process(process)
    raise TimeoutError(f"vllm was not ready within {limit_s:g} s")


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Blocking, at most 15 s."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=5)
