"""What the real `modal deploy` asks Modal for, file by file, recorded by a server on loopback."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("modal")

from modal_proto import api_pb2
from tests.backends.modal.conftest import FOLDER
from tests.backends.modal.recorder import Recorder, deploy

MINUTE_S = 60


def recorded(name: str, **variables: str) -> Recorder:
    return asyncio.run(deploy(FOLDER / name, **variables))[0]


def functions(recorder: Recorder) -> dict[str, Any]:
    found = recorder.of(api_pb2.FunctionCreateRequest)
    return {request.function.function_name: request.function for request in found}


def secrets(recorder: Recorder) -> dict[str, list[str]]:
    """By name: the variables that must be in it. Secrets made of variables here have no name."""
    found = recorder.of(api_pb2.SecretGetOrCreateRequest)
    return {r.deployment_name: list(r.required_keys) for r in found if r.deployment_name}


def image_commands(recorder: Recorder) -> str:
    found = recorder.of(api_pb2.ImageGetOrCreateRequest)
    return "\n".join("\n".join(request.image.dockerfile_commands) for request in found)


def test_the_voice_stack() -> None:
    recorder = recorded("app.py")
    found = functions(recorder)
    assert set(found) == {f"{n}Service.*" for n in ("Stt", "Tts", "Llm", "Orchestrator")}
    gpus = {n: f.resources.gpu_config.gpu_type for n, f in found.items()}
    assert gpus == {
        "SttService.*": "L4",
        "TtsService.*": "L4",
        "LlmService.*": "L40S",
        "OrchestratorService.*": "",
    }
    for name, function in found.items():
        web = function.method_definitions["web"].webhook_config
        assert web.type == api_pb2.WEBHOOK_TYPE_ASGI_APP
        assert web.requires_proxy_auth == (name != "OrchestratorService.*"), name
        assert function.autoscaler_settings.min_containers == 1
        assert function.autoscaler_settings.scaledown_window == 20 * MINUTE_S
        assert function.startup_timeout_secs == 15 * MINUTE_S
        assert [mount.mount_path for mount in function.volume_mounts] == ["/models"]
        assert function.max_concurrent_inputs >= 16
        assert function.checkpointing_enabled == (name != "LlmService.*")
    orchestrator = found["OrchestratorService.*"]
    assert orchestrator.autoscaler_settings.max_containers == 1
    assert orchestrator.timeout_secs > 60 * MINUTE_S, "a call is one input"
    assert orchestrator.resources.milli_cpu == 2000
    assert secrets(recorder) == {
        "voice-auth": ["VOICE_SERVICE_TOKEN"],
        "voice-proxy": ["VOICE_PROXY_KEY", "VOICE_PROXY_SECRET"],
        "antiphon": [],
    }
    assert len(orchestrator.secret_ids) == 3
    assert {len(f.secret_ids) for n, f in found.items() if f is not orchestrator} == {1}
    commands = image_commands(recorder)
    assert "--require-hashes" in commands
    assert "'/opt/antiphon[faster-whisper]'" in commands


def test_models_and_gpus_are_chosen_where_it_is_deployed() -> None:
    recorder = recorded("app.py", VOICE_TTS="xtts", VOICE_TTS_GPU="T4", VOICE_WARM="0")
    function = functions(recorder)["TtsService.*"]
    assert function.resources.gpu_config.gpu_type == "T4"
    assert function.autoscaler_settings.min_containers == 0
    assert "'/opt/antiphon[coqui]'" in image_commands(recorder)
    made = recorder.of(api_pb2.SecretGetOrCreateRequest)
    assert {"VOICE_TTS": "xtts"} in [dict(request.env_dict) for request in made]


@pytest.mark.parametrize(
    ("name", "function", "gpu"),
    [("phone_vllm.py", "serve", "A10G"), ("phone_xtts.py", "serve", "T4")],
)
def test_the_services_of_the_phone_bot(name: str, function: str, gpu: str) -> None:
    recorder = recorded(name)
    found = functions(recorder)[function]
    assert found.resources.gpu_config.gpu_type == gpu
    assert found.autoscaler_settings.scaledown_window == 20 * MINUTE_S
    assert set(secrets(recorder)) == {"phone-bot"}
    kinds = {"phone_vllm.py": api_pb2.WEBHOOK_TYPE_WEB_SERVER}
    assert found.webhook_config.type == kinds.get(name, api_pb2.WEBHOOK_TYPE_ASGI_APP)


def test_the_phone_bot_is_one_process() -> None:
    recorder = recorded("phone_bot.py")
    found = functions(recorder)["PhoneBot.*"]
    assert found.resources.gpu_config.gpu_type == "T4"
    assert found.autoscaler_settings.max_containers == 1
    assert not found.method_definitions["web"].webhook_config.requires_proxy_auth
    needed = secrets(recorder)["phone-bot"]
    assert {"TWILIO_AUTH_TOKEN", "VLLM_BASE_URL", "XTTS_BASE_URL"} <= set(needed)


def test_the_batch_function_has_its_name() -> None:
    recorder = recorded("batch.py", ASR_MODEL="whisper")
    (published,) = recorder.of(api_pb2.AppPublishRequest)
    assert published.name == "speech-to-speech"
    assert set(published.function_ids) == {"process_audio"}
    made = recorder.of(api_pb2.SecretGetOrCreateRequest)
    assert {"ASR_MODEL": "whisper"} in [dict(request.env_dict) for request in made]


@pytest.mark.parametrize("name", ["app", "phone_vllm", "phone_xtts", "phone_bot", "batch"])
def test_a_container_can_import_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the two files lie beside each other, and no repository around them."""
    for file in (f"{name}.py", "antiphon_modal.py"):
        shutil.copy(FOLDER / file, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in (name, "antiphon_modal"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    try:
        assert importlib.import_module(name).__file__ == str(tmp_path / f"{name}.py")
    finally:
        for module in (name, "antiphon_modal"):
            sys.modules.pop(module, None)
