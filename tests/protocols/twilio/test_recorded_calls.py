"""The recorded flow, webhook by webhook, over real sockets: a carrier of ours keeps the recordings."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from tests.protocols.twilio.carrier import SID, TOKEN, Answer, Carrier, carrier
from tests.server.support import Served, serving
from tests.support import nothing_left, run, say, until
from twilio.request_validator import RequestValidator

from antiphon.audio.containers import decode_file
from antiphon.audio.encoding import encode_file
from antiphon.errors import ProtocolError
from antiphon.protocols.twilio import recorded_calls
from antiphon.protocols.twilio.media_store import MediaStore
from antiphon.protocols.twilio.phone_services import PhoneServices
from antiphon.protocols.twilio.recorded_calls import CallMemory
from antiphon.protocols.twilio.recording_fetcher import FetchError, RecordingFetcher, is_public

CALL = "CA1"


def wav(hz: int, ms: int = 640) -> bytes:
    return encode_file(say(hz, ms, silence_ms=300, rate_hz=8_000), 8_000, "wav")


@dataclass(slots=True)
class Line:
    served: Served
    carrier: Carrier
    verbs: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """Of the last document: name, text, attributes."""
    at: str = "/voice"

    @property
    def services(self) -> PhoneServices:
        services = self.served.app.state.services
        assert isinstance(services, PhoneServices)
        return services

    async def post(
        self, path: str, headers: dict[str, str] | None = None, **form: str
    ) -> list[str]:
        """-> the names of the verbs that are answered."""
        self.at = urljoin(self.at, path)
        form = {"CallSid": CALL, "From": "+15550100", "To": "+15550199", **form}
        answer = await self.served.http.post(self.at, data=form, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/xml")
        root = ElementTree.fromstring(answer.text)
        self.verbs = [(e.tag, e.text or "", dict(e.attrib)) for e in root]
        return [name for name, _, _ in self.verbs]

    async def speak(self, hz: int, number: int = 1, **form: str) -> list[str]:
        """The caller says something: recorded, announced, answered."""
        path = f"/rec/{number}"
        self.carrier.files.setdefault(path, [Answer(200, wav(hz))])
        url = f"{self.carrier.url}{path}"
        return await self.post(
            "/voice/recorded", RecordingUrl=url, RecordingSid=f"RE{number}", **form
        )

    async def played(self) -> httpx.Response:
        """The sound file of the last document."""
        address = next(text for name, text, _ in self.verbs if name == "Play")
        return await self.served.http.get(urljoin(self.at, address))


@contextlib.asynccontextmanager
async def line(folder: Path, **overrides: Any) -> AsyncIterator[Line]:
    async with carrier() as company:
        options = {"phone__media_hosts": company.url, **overrides}
        async with serving(folder, **options) as served:
            yield Line(served, company)


def history(found: Line) -> list[tuple[str, str]]:
    return [(item.role, item.text) for item in found.services.memory.of(CALL)]


def test_a_recording_that_comes_before_the_last_one_is_answered(tmp_path: Path) -> None:
    """The webhook of the older one is answered, with nothing to say."""

    async def main() -> None:
        async with nothing_left(), line(tmp_path) as phone:
            phone.carrier.files["/rec/1"] = [Answer(404)]
            older = asyncio.create_task(phone.speak(440, 1))
            await until(_at_work)
            newer = Line(phone.served, phone.carrier)
            assert await newer.speak(440, 2) == ["Play", "Record", "Redirect"]
            assert await older == ["Record", "Redirect"]

    run(main())


def _at_work() -> bool:
    return any(task.get_name() == f"recorded {CALL}" for task in asyncio.all_tasks())


def test_a_call_of_two_turns(tmp_path: Path) -> None:
    async def main() -> None:
        async with nothing_left(), line(tmp_path, conversation__greeting="Hi there!") as phone:
            assert await phone.post("/voice") == ["Play", "Record", "Redirect"]
            attributes = phone.verbs[1][2]
            assert attributes == {
                "action": "voice/recorded",
                "method": "POST",
                "timeout": "2",
                "maxLength": "60",
                "finishOnKey": "#",
                "playBeep": "false",
            }
            greeting = await phone.played()
            assert greeting.headers["content-type"] == "audio/wav"
            sound = decode_file(greeting.content, rate_hz=None)
            assert sound.rate_hz == 8_000
            assert 150 < len(sound.pcm) / 8 < 350  # two words

            assert await phone.speak(440) == ["Play", "Record", "Redirect"]
            assert phone.verbs[1][2]["action"] == "recorded"
            assert len(decode_file((await phone.played()).content).pcm) > 3_000
            await phone.speak(550, 2)
            told = history(phone)
            assert told[:3] == [
                ("assistant", "Hi there!"),
                ("user", "what time is it"),
                ("assistant", "It is noon."),
            ]
            assert [role for role, _ in told[3:]] == ["user", "assistant"]
            report = (await phone.served.http.get("/calls/compare")).json()
            assert report["flows"]["recorded"]["turns"] == 2
            assert report["flows"]["recorded"]["wait_ms"]["median"] >= 2_000
            assert set(report["calls"][0]["stages_median_ms"]) >= {"fetch", "stt", "total"}
            text = (await phone.served.http.get("/calls/compare?format=text")).text
            assert "recorded" in text
            assert "fetch" in text

    run(main())


def test_the_second_question_is_asked_with_the_first_in_mind(tmp_path: Path) -> None:
    listed = {"scripted": {"replies": ["The first.", "The second."]}}

    async def main() -> None:
        async with line(tmp_path, models__options__llm=listed) as phone:
            await phone.speak(440)
            await phone.speak(440, 2)
            assert [text for role, text in history(phone) if role == "assistant"] == [
                "The first.",
                "The second.",
            ]

    run(main())


def test_a_recording_that_is_not_there_yet(tmp_path: Path) -> None:
    async def main() -> None:
        async with line(tmp_path) as phone:
            phone.carrier.files["/rec/1"] = [Answer(404), Answer(404), Answer(200, wav(440))]
            assert await phone.speak(440) == ["Play", "Record", "Redirect"]
            assert len(phone.carrier.asked) == 3
            assert history(phone)[-1] == ("assistant", "It is noon.")

    run(main())


def test_a_slow_answer_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_calls, "PATIENCE_S", 0.01)
    slow = {"rules": {"time": "It is noon."}, "delay_ms": 150}

    async def main() -> None:
        async with line(tmp_path, models__options__llm={"scripted": slow}) as phone:
            names = await phone.speak(440)
            polls = 0
            while names == ["Pause", "Redirect"]:
                polls += 1
                names = await phone.post(phone.verbs[1][1])
            assert polls > 1
            assert names == ["Play", "Record", "Redirect"]

    run(main())


def test_a_webhook_that_comes_twice_is_answered_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with line(tmp_path) as phone:
            await phone.speak(440)
            first = phone.verbs
            await phone.speak(440)
            assert phone.verbs == first
            assert len(phone.carrier.asked) == 1
            assert len(history(phone)) == 2

    run(main())


def test_silence_is_asked_about_and_then_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with line(tmp_path, conversation__max_idle_prompts=2) as phone:
            await phone.post("/voice")
            assert await phone.post("/voice/silent") == ["Play", "Record", "Redirect"]
            path = f"{phone.carrier.url}/rec/9"
            phone.carrier.files["/rec/9"] = [
                Answer(200, encode_file(np.zeros(8_000, np.int16), 8_000, "wav"))
            ]
            form = {"RecordingUrl": path, "RecordingSid": "RE9"}
            assert await phone.post("/voice/recorded", **form) == ["Play", "Record", "Redirect"]
            empty = {"RecordingUrl": path, "RecordingDuration": "0"}
            assert await phone.post("/voice/recorded", **empty) == ["Play", "Hangup"]
            assert history(phone) == []

    run(main())


def test_words_end_the_counting_of_silence(tmp_path: Path) -> None:
    async def main() -> None:
        async with line(tmp_path, conversation__max_idle_prompts=1) as phone:
            await phone.post("/voice/silent")
            await phone.speak(440)
            assert (await phone.post("/voice/silent"))[-1] == "Redirect"
            assert (await phone.post("/voice/silent"))[-1] == "Hangup"

    run(main())


@pytest.mark.parametrize(
    "trouble",
    [
        {"models__options__llm": {"scripted": {"fail_always": True}}},
        {"models__options__stt": {"scripted": {"fail_always": True}}},
        {"models__options__tts": {"scripted": {"fail_always": True}}},
    ],
    ids=["llm", "stt", "tts"],
)
def test_the_call_survives_a_model(tmp_path: Path, trouble: dict[str, Any]) -> None:
    async def main() -> None:
        async with nothing_left(), line(tmp_path, **trouble) as phone:
            names = await phone.speak(440)
            assert names[0] in ("Play", "Say")
            assert names[1:] == ["Record", "Redirect"]

    run(main())


@pytest.mark.parametrize("answer", [Answer(401), Answer(200, b"no sound"), Answer(200, b"")])
def test_the_call_survives_a_bad_recording(tmp_path: Path, answer: Answer) -> None:
    async def main() -> None:
        async with line(tmp_path) as phone:
            phone.carrier.files["/rec/1"] = [answer]
            assert (await phone.speak(440))[1:] == ["Record", "Redirect"]

    run(main())


def test_a_hang_up_frees_everything(tmp_path: Path) -> None:
    slow = {"rules": {"time": "It is noon."}, "delay_ms": 300}

    async def main() -> None:
        async with nothing_left(), line(tmp_path, models__options__llm={"scripted": slow}) as phone:
            await phone.speak(440)
            assert await phone.post("/voice/recorded", Digits="hangup") == []
            assert history(phone) == []

    run(main())


def test_signed_and_not(tmp_path: Path) -> None:
    public = "https://v.example"

    async def main() -> None:
        settings = {
            "phone__auth_token": TOKEN,
            "phone__account_sid": SID,
            "phone__public_url": public,
        }
        async with carrier() as company:
            settings["phone__rest_base_url"] = company.url
            async with serving(tmp_path, **settings) as served:
                phone = Line(served, company)
                for path in (
                    "voice",
                    "voice/recorded",
                    "voice/wait",
                    "voice/silent",
                    "calls/status",
                ):
                    refused = await served.http.post(f"/{path}", data={"CallSid": CALL})
                    assert refused.status_code == 403
                company.files["/rec/1"] = [Answer(200, wav(440))]
                form = {
                    "CallSid": CALL,
                    "RecordingUrl": f"{company.url}/rec/1",
                    "From": "+15550100",
                    "To": "+15550199",
                }
                signature = RequestValidator(TOKEN).compute_signature(
                    f"{public}/voice/recorded", form
                )
                headers = {"X-Twilio-Signature": signature}
                names = await phone.post(
                    "/voice/recorded", headers, RecordingUrl=form["RecordingUrl"]
                )
                assert names == ["Play", "Record", "Redirect"]
                assert company.asked[0].auth == f"{SID}:{TOKEN}"

    run(main())


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:22/",
        "https://api.twilio.com.evil.example/x",
        "https://api.twilio.com@evil.example/x",
        "http://api.twilio.com/x",
        "https://api.twilio.com:8443/x",
        "file:///etc/passwd",
        "gopher://api.twilio.com/",
        "http://127.0.0.1:8000/x",
        "http://[::1]/x",
        "http://[::ffff:127.0.0.1]/x",
        "http://2130706433/x",
        "http://0x7f000001/x",
        "http://0177.0.0.1/x",
        "http://127.1/x",
        "http://0/x",
        "http://10.0.0.1/x",
        "http://[fe80::1]/x",
        "not a url",
        "",
    ],
)
@pytest.mark.parametrize("token", ["", TOKEN])
def test_recordings_are_fetched_from_known_hosts_only(address: str, token: str) -> None:
    async def main() -> None:
        chosen = Carrier().settings(
            rest_base_url="https://api.twilio.com", auth_token=SecretStr(token)
        )
        fetcher = RecordingFetcher(chosen)
        try:
            with pytest.raises(ProtocolError):
                await fetcher.fetch(address)
        finally:
            await fetcher.close()

    run(main())


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07::1", True),
        ("64:ff9b::5db8:d70e", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
        ("64:ff9b::a00:1", False),  # NAT64 of 10.0.0.1
        ("2130706433", False),
        ("0x7f.1", False),
        ("", False),
    ],
)
def test_addresses_that_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:169.254.169.254"])
@pytest.mark.parametrize("others", [[], ["93.184.215.14"]])
def test_a_name_of_the_phone_company_that_leads_inside(
    inner: str, others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that lies, or a name taken over."""

    async def main() -> None:
        asked: list[str] = []

        async def resolve(host: str, port: int, **options: Any) -> list[Any]:
            asked.append(host)
            return [(0, 0, 0, "", (address, port)) for address in [*others, inner]]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        fetcher = RecordingFetcher(Carrier().settings(rest_base_url="https://api.twilio.com"))
        try:
            with pytest.raises(ProtocolError, match="inside of a network"):
                await fetcher.fetch("https://media.us1.twilio.com/x")
            assert asked == ["media.us1.twilio.com"]
        finally:
            await fetcher.close()

    run(main())


def test_the_address_that_was_looked_at_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def resolve(host: str, port: int, **options: Any) -> list[Any]:
            return [(0, 0, 0, "", ("93.184.215.14", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        sent: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return httpx.Response(200, stream=httpx.ByteStream(b"sound"))

        fetcher = RecordingFetcher(Carrier().settings(rest_base_url="https://api.twilio.com"))
        fetcher._http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        try:
            assert await fetcher.fetch("https://api.twilio.com/rec/1?a=b") == b"sound"
        finally:
            await fetcher.close()
        (request,) = sent
        assert str(request.url) == "https://93.184.215.14/rec/1?a=b"
        assert request.headers["host"] == "api.twilio.com"
        assert request.extensions["sni_hostname"] == "api.twilio.com"
        assert request.headers["authorization"].startswith("Basic ")

    run(main())


def test_redirects_are_checked_and_credentials_stay() -> None:
    async def main() -> None:
        async with carrier() as company, carrier() as other, carrier() as stranger:
            settings = company.settings(media_hosts=(other.url,))
            company.files["/a"] = [Answer(307, None, {"Location": f"{other.url}/b"})]
            other.files["/b"] = [Answer(200, b"sound")]
            company.files["/c"] = [Answer(302, None, {"Location": f"{stranger.url}/d"})]
            company.files["/e"] = [Answer(302, None, {"Location": f"{company.url}/e"})]
            fetcher = RecordingFetcher(settings)
            try:
                assert await fetcher.fetch(f"{company.url}/a") == b"sound"
                assert (company.asked[0].auth, other.asked[0].auth) == (f"{SID}:{TOKEN}", "")
                with pytest.raises(ProtocolError, match="media_hosts"):
                    await fetcher.fetch(f"{company.url}/c")
                with pytest.raises(FetchError, match="redirects"):
                    await fetcher.fetch(f"{company.url}/e")
                assert not stranger.asked
            finally:
                await fetcher.close()

    run(main())


def test_addresses_of_sounds(tmp_path: Path) -> None:
    async def main() -> None:
        async with line(tmp_path) as phone:
            await phone.speak(440)
            address = urljoin("/voice/recorded", phone.verbs[0][1])
            http = phone.served.http
            assert (await http.get(address)).status_code == 200
            assert (await http.head(address)).status_code == 200
            for wrong in (
                address.replace("signature=", "signature=0"),
                re.sub(r"expires=\d+", "expires=9999999999", address),
                re.sub(r"audio/[^?]+", "audio/other.wav", address),
                address.partition("?")[0],
            ):
                assert (await http.get(wrong)).status_code == 403

    run(main())


def test_sounds_are_kept_for_a_while() -> None:
    now_s = [1_000.0]
    media_store = MediaStore(max_bytes=100, keep_s=60, clock=lambda: now_s[0])

    def get(address: str) -> bytes | None:
        name, _, query = address.partition("?")
        given = dict(part.split("=") for part in query.split("&"))
        sound = media_store.get(name, given["expires"], given["signature"])
        return sound and sound.data

    first, second = (
        media_store.put(b"a" * 60, "audio/wav", "wav"),
        media_store.put(b"b" * 60, "audio/wav", "wav"),
    )
    assert get(first) is None
    assert get(second) == b"b" * 60
    now_s[0] += 60
    assert get(second) is None


def test_memory_is_bounded() -> None:
    now_s = [0.0]
    memory = CallMemory(max_calls=2, keep_s=10, clock=lambda: now_s[0])
    for sid in ("a", "b", "c"):
        memory.keep(sid, ())
    assert len(memory) == 2
    now_s[0] = 11
    assert memory.of("c") == ()
    assert len(memory) == 0


def test_busy_and_strange_requests(tmp_path: Path) -> None:
    async def main() -> None:
        async with line(tmp_path) as phone:
            assert (await phone.served.http.post("/voice")).status_code == 400
            phone.served.calls.settings = phone.served.calls.settings.model_copy(
                update={
                    "server": phone.served.calls.settings.server.model_copy(update={"max_calls": 0})
                }
            )
            assert await phone.post("/voice") == ["Reject"]

    run(main())
