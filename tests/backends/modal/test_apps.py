"""Each class's own code, run here: what it enters, and the application that it serves, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import uvicorn
from tests.server.support import QUESTION, START, Client
from tests.support import OPTIONS, run, until
from websockets.asyncio.client import connect

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file

Imported = Callable[[str], ModuleType]
KINDS = ("stt", "llm", "tts")
TOKEN = {"Authorization": "Bearer between-services"}
CALLER = {"Authorization": "Bearer for-callers"}
_SETTINGS = """
[models]
vad = "scripted"
turn = "scripted"
[conversation]
greeting = ""
idle_prompt_after_ms = 0
[models.options.stt.scripted]
tones = {tones}
[models.options.llm.scripted]
rules = {rules}
[models.options.tts.scripted]
word_ms = 100
"""

pytestmark = pytest.mark.filterwarnings("ignore:The .* function is executing locally")


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Models that are the same in every run, in the place of those that containers would load."""
    tables = {"tones": OPTIONS["stt"]["tones"], "rules": OPTIONS["llm"]["rules"]}
    text = _SETTINGS
    for name, table in tables.items():
        inline = ", ".join(f'"{key}" = "{value}"' for key, value in table.items())
        text = text.replace(f"{{{name}}}", f"{{{inline}}}")
    (tmp_path / "antiphon.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTIPHON_API_KEY", "for-callers")
    monkeypatch.setenv("ANTIPHON_HOME", str(tmp_path / "home"))
    for kind in KINDS:
        monkeypatch.setenv(f"VOICE_{kind.upper()}", "scripted")


class _Doorkeeper:
    """Modal's front end at an address with `requires_proxy_auth`: no token of the workspace, no service."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        if scope["type"] == "http" and headers.get(b"modal-key") != b"wk-1":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"modal-http: missing credentials"})
            return
        await self.app(scope, receive, send)


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """-> its address, with its lifespan begun, as Modal does it."""
    config = uvicorn.Config(app, port=0, log_level="error", ws="websockets-sansio")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or task.done(), "the application does not start")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def services(module: ModuleType) -> AsyncIterator[dict[str, str]]:
    """The three services of the voice stack, behind a front end -> their addresses by kind."""
    classes = (module.SttService, module.LlmService, module.TtsService)
    async with contextlib.AsyncExitStack() as stack:
        found = {}
        for kind, cls in zip(KINDS, classes, strict=True):
            app = await asyncio.to_thread(cls().web.local)
            found[kind] = await stack.enter_async_context(served(_Doorkeeper(app)))
        yield found


async def ready(http: httpx.AsyncClient, url: str = "") -> None:
    async with asyncio.timeout(30):
        while (await http.get(f"{url}/ready")).status_code != 200:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.01)


async def ask(url: str) -> Client:
    """A question to `/ws/conversation`, answered to its end."""
    address = url.replace("http", "ws", 1) + "/ws/conversation"
    async with connect(address, additional_headers=CALLER, compression=None) as socket:
        caller = Client(socket)
        listening = asyncio.create_task(caller.listen())
        await caller.send(**START)
        await caller.speak(QUESTION)
        await caller.wait("turn_complete")
        await socket.close()
        await listening
    return caller


def proxy_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICE_PROXY_KEY", "wk-1")
    monkeypatch.setenv("VOICE_PROXY_SECRET", "ws-1")


def test_a_call_through_the_orchestrator_and_three_services(
    imported: Imported, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy_token(monkeypatch)
    module = imported("app")

    async def main() -> None:
        async with services(module) as urls:
            for kind, url in urls.items():
                monkeypatch.setenv(f"VOICE_{kind.upper()}_URL", url)
            app = await asyncio.to_thread(module.OrchestratorService().web.local)
            async with served(app) as url, httpx.AsyncClient(base_url=url) as http:
                await ready(http)
                caller = await ask(url)
                assert "".join(m["text"] for m in caller.of("ai_text")) == "It is noon."
                assert any(isinstance(frame, bytes) for frame in caller.frames)
                names = {m["kind"]: m["name"] for m in (await http.get("/ready")).json()["models"]}
                assert [names[kind] for kind in KINDS] == ["openai"] * 3

    run(main())


def test_services_want_both_tokens(imported: Imported, monkeypatch: pytest.MonkeyPatch) -> None:
    module = imported("app")

    async def main() -> None:
        async with services(module) as urls, httpx.AsyncClient() as http:
            for url in urls.values():
                workspace = {"Modal-Key": "wk-1"}
                assert (await http.get(f"{url}/v1/models", headers=TOKEN)).status_code == 401
                # From this machine a service without keys would let anybody in: these have one.
                assert (await http.get(f"{url}/v1/models", headers=workspace)).status_code == 401
                both = await http.get(f"{url}/v1/models", headers={**TOKEN, **workspace})
                assert both.status_code == 200
                assert (await http.get(f"{url}/ready", headers=workspace)).status_code in (200, 503)

    run(main())


def test_a_service_that_never_answers_is_named(
    imported: Imported, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = imported("antiphon_modal")
    with pytest.raises(TimeoutError, match="stt at http://127"):
        shared.until_ready({"stt": "http://127.0.0.1:9"}, 0.01)


def test_no_message_is_larger_than_modal_carries(
    imported: Imported, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = imported("antiphon_modal")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "secret")
    monkeypatch.setenv("VLLM_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("VLLM_API_KEY", "key")
    monkeypatch.setenv("XTTS_BASE_URL", "http://127.0.0.1:9")
    app = imported("phone_bot").PhoneBot().web.local()
    settings = app.state.settings
    assert settings.server.max_message_bytes == shared.MAX_MESSAGE_BYTES < 2 << 20
    assert settings.realtime.max_append_bytes * 4 // 3 < shared.MAX_MESSAGE_BYTES
    assert settings.realtime.max_kept_audio_bytes * 4 // 3 < shared.MAX_MESSAGE_BYTES


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A `vllm` on the path that serves chat completions: Antiphon's own server, with a scripted model."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "vllm"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/vllm-arguments\n'
        f'exec {sys.executable} -m antiphon serve --host 127.0.0.1 --port "$6" '
        "--set models.stt=scripted --set models.llm=scripted --set models.tts=scripted "
        "--set security.local=true\n",
        encoding="utf-8",
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{Path('/usr/bin')}:{Path('/bin')}")
    return tmp_path / "vllm-arguments"


def test_the_llm_class_starts_vllm_and_ends_it(
    imported: Imported, monkeypatch: pytest.MonkeyPatch, fake_vllm: Path
) -> None:
    monkeypatch.setenv("VOICE_LLM", "vllm:some/model")
    monkeypatch.setenv("VLLM_MAX_MODEL_LEN", "4096")
    module = imported("app")
    service = module.LlmService()
    app = service.web.local()
    process = service.vllm
    try:
        arguments = fake_vllm.read_text(encoding="utf-8")
        assert arguments.startswith("serve some/model --host 127.0.0.1 --port")
        assert "--max-model-len 4096" in arguments

        async def main() -> None:
            async with served(app) as url, httpx.AsyncClient(headers=TOKEN, timeout=20) as http:
                await ready(http, url)
                asked = {"messages": [{"role": "user", "content": "what time is it"}], "model": "x"}
                reply = await http.post(f"{url}/v1/chat/completions", json=asked)
                assert reply.json()["choices"][0]["message"]["content"] == "It is noon."

        run(main())
    finally:
        module.shared.end_process(process)
    assert process.returncode is not None


def test_a_vllm_that_ends_at_once_is_not_waited_for(
    imported: Imported, monkeypatch: pytest.MonkeyPatch, fake_vllm: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin" / "vllm").write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    shared = imported("antiphon_modal")
    with pytest.raises(RuntimeError, match="code 3"):
        shared.start_vllm("some/model", 60)


def test_the_voice_of_the_phone_bot_speaks_the_xtts_api(
    imported: Imported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONE_TTS", "scripted")
    app = imported("phone_xtts").serve.local()

    async def main() -> None:
        async with served(app) as url, httpx.AsyncClient(headers=TOKEN, timeout=20) as http:
            await ready(http, url)
            speakers = await http.get(f"{url}/studio_speakers")
            assert speakers.status_code == 200
            assert speakers.json()
            assert (await httpx.AsyncClient().get(f"{url}/studio_speakers")).status_code == 401

    run(main())


def test_the_batch_function_answers_a_recording(
    imported: Imported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ASR_MODEL", "TTS_MODEL", "ANTIPHON_MODELS__LLM"):
        monkeypatch.setenv(name, "scripted")
    batch = imported("batch")
    recording = encode_file(QUESTION, 16_000, "wav", 64)
    answer = batch.process_audio.local(recording)
    assert decode_file(answer, max_duration_s=60).pcm.size > 16_000 // 10
    assert len(batch.process_audio.local(recording, "mp3")) < len(answer)


def test_deploy_puts_the_command_line_together(
    imported: Imported, capfd: pytest.CaptureFixture[str]
) -> None:
    commands = imported("deploy").commands
    assert [Path(command[-1]).name for command in commands("deploy", "phone")] == [
        "phone_vllm.py",
        "phone_xtts.py",
        "phone_bot.py",
    ]
    assert commands("serve", "voice-stack")[0][1:4] == ["-m", "modal", "serve"]
    assert imported("deploy").APPS["batch"] == ("batch.py",)
