"""Money and secrets: who makes this server dial, fetch or tell."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.protocols.twilio.carrier import CALL, SID, TOKEN, carrier
from tests.protocols.twilio.test_outbound import ORDER, PUBLIC, office
from tests.server.support import serving
from tests.support import NoWeights, nothing_left, run
from twilio.request_validator import RequestValidator

from antiphon.config import load
from antiphon.errors import RequestError
from antiphon.models.ports import SpeechRequest
from antiphon.models.tts.espeak import Espeak

ACCOUNT = {"phone__account_sid": SID, "phone__auth_token": TOKEN, "phone__public_url": PUBLIC}


# --- toll fraud -----------------------------------------------------------------------------------


def test_strangers_do_not_dial(tmp_path: Path) -> None:
    """Not without a key, not with a client secret, not from a page, not through a tunnel."""

    async def main() -> None:
        async with office(tmp_path, security__api_key="sk-antiphon-owner") as we:
            http = we.served.http
            owner = {"Authorization": "Bearer sk-antiphon-owner"}
            made = await http.post("/v1/realtime/client_secrets", json={}, headers=owner)
            secret = made.json()["value"]
            for headers in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": f"Bearer {secret}"},
                {"Origin": "https://evil.example"},
                {"Host": "v.example"},
            ):
                assert (await http.post("/calls", json=ORDER, headers=headers)).status_code == 401
            assert not we.carrier.asked
        async with office(tmp_path) as we:
            site = {"Origin": "https://evil.example"}
            assert (
                await we.served.http.post("/calls", json=ORDER, headers=site)
            ).status_code == 403
            assert not we.carrier.asked

    run(main())


@pytest.mark.parametrize(
    ("to", "status"),
    [
        ("+15550100", 201),
        ("+1 (555) 0100", 201),
        ("+4930123456", 201),
        ("+881612345678", 400),  # satellite
        ("+4912345", 400),
        ("+1", 400),
        ("sip:thief@evil.example", 400),
        ("+15550100;postd=ww1", 400),
    ],
)
def test_even_with_a_key_only_where_the_owner_calls(to: str, status: int, tmp_path: Path) -> None:
    """A stolen key should not reach premium numbers."""

    async def main() -> None:
        async with office(tmp_path, phone__dial_prefixes="+1555, +4930") as we:
            assert (await we.dial(to=to)).status_code == status
            assert len(we.carrier.asked) == (status == 201)

    run(main())


def test_a_forged_webhook_starts_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), serving(tmp_path, **ACCOUNT) as served:
            form = {"CallSid": CALL, "From": "+15550100", "To": "+15550199"}
            right = RequestValidator(TOKEN).compute_signature(f"{PUBLIC}/voice-stream", form)
            for changed in ({"From": "+15550101"}, {"Extra": "1"}):
                for signature in (right, "", "x", right[:-1]):
                    answer = await served.http.post(
                        "/voice-stream",
                        data=form | changed,
                        headers={"X-Twilio-Signature": signature},
                    )
                    assert answer.status_code == 403
            good = await served.http.post(
                "/voice-stream", data=form, headers={"X-Twilio-Signature": right}
            )
            assert good.status_code == 200

    run(main())


# --- fetching on somebody's word ------------------------------------------------------------------


@pytest.mark.parametrize("signed", [True, False])
def test_a_recordings_address_reaches_nothing_inside(signed: bool, tmp_path: Path) -> None:
    """Even with the right signature (a carrier's bug, a leaked token): this machine is not asked."""

    async def main() -> None:
        async with carrier() as company, carrier() as inner:
            options = {**ACCOUNT, "phone__rest_base_url": company.url}
            async with nothing_left(), serving(tmp_path, **options) as served:
                form = {"CallSid": CALL, "RecordingUrl": f"{inner.url}/secret", "From": "+15550100"}
                url = f"{PUBLIC}/voice/recorded"
                token = TOKEN if signed else "0" * 32
                signature = RequestValidator(token).compute_signature(url, form)
                answer = await served.http.post(
                    "/voice/recorded", data=form, headers={"X-Twilio-Signature": signature}
                )
                assert answer.status_code == (200 if signed else 403)
                assert not inner.asked

    run(main())


# --- voices are names -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "voice", ["/etc/passwd", "../../etc/passwd", "-f/etc/passwd", "a b", "a;b"]
)
def test_a_voice_is_no_path_and_no_option(voice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Espeak, "_run", lambda _self, *given, **_more: asked.append(given))
    with pytest.raises(RequestError, match="no voice"):
        list(Espeak(NoWeights()).synthesize(SpeechRequest("Hello.", voice=voice)))
    assert not asked


def test_a_voice_from_a_client_opens_no_file(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as served:
            for voice in ("/etc/passwd", "../../../etc/passwd", str(tmp_path / "x.wav")):
                body = {"model": "tts-1", "input": "Hello.", "voice": voice}
                answer = await served.http.post("/v1/audio/speech", json=body)
                assert answer.status_code in (200, 400), answer.text
                assert b"root:" not in answer.content

    run(main())


# --- keys stay out of what is written -------------------------------------------------------------


def test_keys_of_all_kinds_stay_out_of_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever a stranger sends, and whatever the owner has set, at the most talkative level."""
    from antiphon.observe import logs

    secrets = {
        "endpoint__api_key": "sk-proj-aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "security__api_key": "sk-antiphon-bbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "phone__auth_token": "cccccccccccccccccccccccccccccccc",
        "phone__stream_key": "dddddddddddddddddddddddddddd",
    }
    sent = "sk-eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    async def main() -> None:
        async with serving(tmp_path, server__debug=True, **secrets) as served:
            logging.getLogger("test").info("settings: %r", served.calls.settings)
            for headers in ({"Authorization": f"Bearer {sent}"}, {"api-key": sent}):
                await served.http.get("/v1/models", headers=headers)
            await served.http.get(f"/media-stream/{secrets['phone__stream_key']}")
            async with httpx.AsyncClient() as other:
                await other.get(f"http://{served.address}/voice", headers={"Authorization": sent})

    handler = logs.setup("json", level=logging.DEBUG)
    try:
        run(main())
    finally:
        root.removeHandler(handler)
        root.handlers[:] = handlers
        root.setLevel(level)
    written = "".join(capfd.readouterr())
    assert "settings" in written
    for secret in (*secrets.values(), sent):
        assert secret not in written


def test_settings_that_are_wrong_are_not_repeated(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ANTIPHON_SECURITY__KEYS=sk-in-the-wrong-place\n")
    with pytest.raises(Exception, match="keys create") as caught:
        load(folder=tmp_path)
    assert "sk-in" not in str(caught.value)
