"""Who gets in, in which dialect, and how a session ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.protocols.realtime.support import call, spoken, talking
from tests.server.support import serving
from tests.support import run, until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from antiphon.server.client_secrets import Pinned
from antiphon.server.security import Gate

KEY_ITEM = "openai-insecure-api-key.sk-secret"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        (["realtime"], "realtime"),
        (["realtime", KEY_ITEM], "realtime"),
        ([KEY_ITEM], None),
    ],
)
def test_the_subprotocol_is_chosen_only_if_offered(
    tmp_path: Path, offered: list[str] | None, chosen: str | None
) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served, subprotocols=offered) as c:
            await c.wait("session.created")
            assert c.socket.subprotocol == chosen

    run(main())


def test_beta_by_subprotocol(tmp_path: Path) -> None:
    async def main() -> None:
        offered = ["realtime", KEY_ITEM, "openai-beta.realtime-v1"]
        url = "ws://{}/v1/realtime?model=x"
        async with (
            serving(tmp_path) as served,
            connect(url.format(served.address), subprotocols=offered) as socket,
        ):
            created = json.loads(await socket.recv())
            assert created["session"]["modalities"] == ["text", "audio"]
            assert json.loads(await socket.recv())["type"] == "conversation.created"

    run(main())


def test_without_the_right_key_there_is_a_real_401(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, security__api_key="sk-right-and-long-enough") as served:
            with pytest.raises(InvalidStatus) as refused:
                async with talking(served):
                    pass
            assert refused.value.response.status_code == 401
            body = json.loads(refused.value.response.body)
            assert body["error"]["code"] == "invalid_api_key"
            headers = {"api-key": "sk-right-and-long-enough"}
            async with talking(served, additional_headers=headers) as c:
                await c.wait("session.created")

    run(main())


def test_a_client_secret_brings_its_session_along(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            gate: Gate = served.app.state.gate
            session = {
                "type": "realtime",
                "instructions": "Be a pirate.",
                "output_modalities": ["text"],
            }
            secret, _ = gate.secrets.create(None, Pinned(session))
            flat, _ = gate.secrets.create(None, Pinned({"voice": "echo"}, "beta"))
            for key, said in ((secret, "Be a pirate."), (flat, None)):
                headers = {"Authorization": f"Bearer {key}"}
                async with talking(served, additional_headers=headers) as c:
                    created = (await c.wait("session.created"))["session"]
                    if said:
                        assert created["instructions"] == said
                        assert created["output_modalities"] == ["text"]
                    else:
                        assert created["audio"]["output"]["voice"] == "echo"

    run(main())


def test_any_model_or_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            for query, model in (("?model=gpt-realtime", "gpt-realtime"), ("", "antiphon")):
                async with talking(served, query) as c:
                    assert (await c.wait("session.created"))["session"]["model"] == model

    run(main())


def test_busy_is_one_error_and_then_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, server__max_calls=1) as served, talking(served) as first:
            await first.wait("session.created")
            async with talking(served) as second:
                code, reason = await second.wait_closed()
                assert code == 1013
                assert "busy" in reason
                assert [e["type"] for e in second.events] == ["error"]
                assert second.events[0]["error"]["code"] == "rate_limit_exceeded"

    run(main())


def test_a_session_that_is_too_old(tmp_path: Path) -> None:
    async def main() -> None:
        async with call(tmp_path, realtime__max_session_s=1) as c:
            code, _ = await c.wait_closed()
            error = c.of("error")[-1]["error"]
            assert (code, error["code"]) == (1000, "session_expired")
            assert "maximum duration" in error["message"]

    run(main())


def test_the_server_shuts_down(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served, talking(served) as c:
            await c.text("tell me a story")
            await c.send("response.create")
            await c.wait("response.created")
            served.server.should_exit = True
            code, _ = await c.wait_closed()
            assert code == 1001
            assert len(c.of("response.done")) == 1

    run(main())


def test_nothing_is_left_when_the_client_goes_away(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            async with talking(served) as c:
                await c.speak(spoken(550, silence_ms=900))
                await c.send("response.create", response={"conversation": "none"})
                await c.wait("response.created")
            await until(lambda: not len(served.calls), "the call is still on")

    run(main())
