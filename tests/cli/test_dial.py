"""`antiphon dial` and `antiphon doctor --phone`, against a real server and a carrier of ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.protocols.twilio.carrier import CALL, Answer, Carrier, carrier, refusal
from tests.server.support import serving
from tests.support import run, settings, until
from typer.testing import CliRunner

from antiphon.cli import dial as module
from antiphon.cli.dial import read_agent
from antiphon.cli.doctor_checks import Finding
from antiphon.cli.doctor_phone import check_phone
from antiphon.cli.main import app
from antiphon.errors import ConfigError

SID, TOKEN = "AC" + "1" * 32, "a" * 32
ENV = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "PUBLIC_URL", "PROXY_HOST", "ANTIPHON_API_KEY")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ENV:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def phone_of(company: Carrier, **changes: Any) -> dict[str, Any]:
    return {
        "phone__account_sid": SID,
        "phone__auth_token": TOKEN,
        "phone__from_number": "+15550199",
        "phone__rest_base_url": company.url,
        "server__trusted_proxies": "192.0.2.1",
        "phone__public_url": "https://v.example",
        **changes,
    }


@contextlib.asynccontextmanager
async def dialling(folder: Path, *options: str) -> AsyncIterator[tuple[Any, Carrier, Any]]:
    """-> (the server, the carrier, the command that runs)."""
    async with carrier() as company, serving(folder, **phone_of(company)) as served:
        arguments = ["dial", "+15550100", "--server", f"http://{served.address}", *options]
        command = asyncio.to_thread(CliRunner().invoke, app, arguments)
        yield served, company, asyncio.ensure_future(command)


def test_dial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.02)
    agent = tmp_path / "agent.toml"
    agent.write_text('[agent]\nprompt = "Be kind."\n')

    async def main() -> Any:
        async with dialling(tmp_path, "--agent", str(agent), "--record", "--amd") as (
            served,
            company,
            command,
        ):
            await until(lambda: company.asked)
            outbound = served.app.state.services.outbound
            await until(lambda: outbound.of_sid(CALL))
            call = outbound.of_sid(CALL)
            assert call.order.agent.prompt == "Be kind."
            assert company.asked[0].first("MachineDetection")
            outbound.note(call, "in-progress", answered_by="human")
            outbound.note(call, "completed", duration_s=7)
            return await command

    found = run(main())
    assert found.exit_code == 0, found.output
    assert f"calling +15550100, {CALL}" in found.output
    assert found.output.endswith("completed  human\n7 s\n")


def test_dial_that_nobody_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_POLL_S", 0.02)

    async def main() -> Any:
        async with dialling(tmp_path, "--json") as (served, _, command):
            outbound = served.app.state.services.outbound
            await until(lambda: outbound.of_sid(CALL))
            outbound.note(outbound.of_sid(CALL), "no-answer")
            return await command

    found = run(main())
    assert found.exit_code == 1
    assert json.loads(found.output)["status"] == "no-answer"


def test_dial_that_is_refused(tmp_path: Path) -> None:
    async def main() -> Any:
        async with carrier() as company, serving(tmp_path, **phone_of(company)) as served:
            company.script = [refusal(400, 21219)]
            arguments = ["dial", "+15550100", "--server", f"http://{served.address}"]
            return await asyncio.to_thread(CliRunner().invoke, app, arguments)

    assert "trial account" in str(run(main()).exception)


def test_dial_without_a_server() -> None:
    found = CliRunner().invoke(app, ["dial", "+15550100", "--server", "http://127.0.0.1:1"])
    assert "antiphon serve" in str(found.exception)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prompt = ", "not valid TOML"),
        ("agent = 1", "a table"),
        ("x" * 200_000, "too large"),
    ],
)
def test_agent_files(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_agent(file)


# --- the doctor -------------------------------------------------------------------------------------


def examine(
    folder: Path,
    webhook: str = "",
    script: list[Answer] | None = None,
    running: dict[str, Any] | None = None,
) -> dict[str, Finding]:
    """The doctor's findings about a running server. `webhook`: what the number has, `%` for the public address."""

    async def main() -> dict[str, Finding]:
        async with carrier() as company:
            company.script = script or []
            # The server goes by the Host that it was asked for; the doctor has to be told.
            server = {**phone_of(company, phone__public_url=""), **(running or {})}
            async with serving(folder, **server) as served:
                address = f"http://{served.address}"
                if webhook:
                    url = webhook.replace("%", address)
                    company.numbers = [{"voice_url": url, "voice_method": "POST"}]
                looked = settings(folder, **phone_of(company, phone__public_url=address))
                found = await asyncio.to_thread(lambda: list(check_phone(looked)))
                return {finding.check: finding for finding in found}

    findings: dict[str, Finding] = run(main())
    assert all(f.todo for f in findings.values() if f.state != "ok")
    assert TOKEN not in str(findings)
    return findings


def states(found: dict[str, Finding]) -> dict[str, str]:
    return {name.removeprefix("phone "): finding.state for name, finding in found.items()}


def test_all_is_well(tmp_path: Path) -> None:
    found = states(examine(tmp_path, "%/voice-stream"))
    assert found == {
        "account": "ok",
        "token": "ok",
        "REST": "ok",
        "webhook": "ok",
        "address": "ok",
        "TwiML": "ok",
        "signature": "ok",
        "stream": "ok",
    }


def test_the_server_has_another_token(tmp_path: Path) -> None:
    found = examine(tmp_path, "%/voice-stream", running={"phone__auth_token": "b" * 32})
    assert found["phone signature"].state == "fail"
    assert found["phone stream"].state == "fail"


def test_calls_go_elsewhere(tmp_path: Path) -> None:
    found = examine(tmp_path, "https://old.example/voice")
    assert (found["phone webhook"].state, "old.example" in found["phone webhook"].found) == (
        "fail",
        True,
    )


def test_no_such_number(tmp_path: Path) -> None:
    assert examine(tmp_path)["phone webhook"].state == "fail"


def test_wrong_credentials(tmp_path: Path) -> None:
    found = examine(tmp_path, script=[refusal(401, 20003)])
    assert found["phone REST"].state == "fail"
    assert "auth_token" in found["phone REST"].todo


def test_nothing_is_set(tmp_path: Path) -> None:
    found = {f.check: f for f in check_phone(settings(tmp_path))}
    assert states(found) == {
        "account": "fail",
        "token": "fail",
        "number": "warn",
        "address": "fail",
    }


def test_nobody_is_there(tmp_path: Path) -> None:
    found = {
        f.check: f for f in check_phone(settings(tmp_path, phone__public_url="http://127.0.0.1:1"))
    }
    assert "antiphon serve" in found["phone address"].todo
