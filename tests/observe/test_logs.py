"""Log lines: the call in every one, secrets in none."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from antiphon.core.turn_record import TurnRecord
from antiphon.errors import ConfigError
from antiphon.observe import logs
from antiphon.observe.redact import redact

KEY = "sk-" + "abcd1234" * 4
log = logging.getLogger("antiphon.test")


@pytest.fixture(autouse=True)
def _root() -> Iterator[None]:
    """Logging is of the process: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("httpx", "openai", "asyncio")}
    yield
    root.handlers[:], root.level = handlers, level
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def json_lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def set_up(form: str) -> io.StringIO:
    out = io.StringIO()
    logs.setup(form, stream=out)
    return out


def test_every_line_of_a_call_names_it_also_from_its_tasks_and_timers() -> None:
    out = set_up("json")

    async def call(call_id: str) -> None:
        with logs.in_call(call_id):
            log.info("direct")
            await asyncio.create_task(inside())
            done = asyncio.Event()
            asyncio.get_running_loop().call_soon(lambda: (log.info("timer"), done.set()))
            await done.wait()

    async def inside() -> None:
        log.info("task")

    async def both() -> None:
        await asyncio.gather(call("one"), call("two"))
        log.info("after")

    asyncio.run(both())
    found = [(line["message"], line.get("call")) for line in json_lines(out)]
    for name in ("one", "two"):
        assert [m for m, call in found if call == name] == ["direct", "task", "timer"]
    assert ("after", None) in found
    assert logs.current_call() == ""


def test_json_has_fields_and_the_traceback() -> None:
    out = set_up("json")
    try:
        raise ValueError(f"the key was {KEY}")
    except ValueError:
        log.exception("no luck\nat all", extra={"turn": 3, "who": "a@b.example", "message_id": 1})
    (line,) = json_lines(out)
    assert (line["level"], line["logger"], line["turn"]) == ("error", "antiphon.test", 3)
    assert line["message"] == "no luck\nat all"
    assert line["who"] == "[e-mail]"
    assert "ValueError: the key was [secret]" in line["error"]
    assert line["time"].endswith("+00:00")


def test_pretty_is_one_line_whatever_a_client_sent() -> None:
    out = set_up("pretty")
    with logs.in_call("0123456789abcdef"):
        log.warning("bad name %r and %s", "x", "fake\n12:00:00 ERROR all is lost\x1b[2J")
    (line,) = out.getvalue().splitlines()
    assert "\x1b" not in line
    assert "WARNING [01234567] test: bad name 'x' and fake\\n12:00:00" in line


def test_a_slip_in_a_log_call_does_not_lose_the_line() -> None:
    out = set_up("json")
    log.info("%d calls", "many")
    assert "many" in json_lines(out)[0]["message"]


def test_setup_replaces_what_was_there_and_quiets_others() -> None:
    first = set_up("json")
    second = set_up("pretty")
    log.info("hello")
    logging.getLogger("httpx").info("GET /")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_setup_knows_its_formats() -> None:
    with pytest.raises(ConfigError, match="did you mean 'json'"):
        logs.setup("jsn")


def test_a_turn_is_a_line_with_its_figures_and_without_its_words() -> None:
    out = set_up("json")
    record = TurnRecord(
        2,
        user_text="my secret plan",
        heard_text="a plan",
        status="cancelled",
        interrupted=True,
        speech_end_ms=1000,
        first_sent_ms=1400,
        played_ms=700,
        audio_ms=2000,
    )
    logs.log_turn(record)
    logs.log_turn(record, text=True)
    bare, told = json_lines(out)
    assert bare["message"] == "turn 2 cancelled after 400 ms (interrupted at 700 of 2000 ms)"
    assert (bare["turn"], bare["voice_to_voice_ms"]) == (2, 400)
    assert "stt_ms" not in bare
    assert "plan" not in json.dumps(bare)
    assert told["user_text"] == "my secret plan"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"key {KEY} used", "key [secret] used"),
        ("Authorization: Bearer abc.def-ghi123", "Authorization: Bearer [secret]"),
        ("sent Bearer abcdefgh12345", "sent Bearer [secret]"),
        ("api_key='0123456789'", "api_key='[secret]'"),
        ('{"password": "hunter22"}', '{"password": "[secret]"}'),
        ("ANTIPHON_ENDPOINT__API_KEY=abcdef123", "ANTIPHON_ENDPOINT__API_KEY=[secret]"),
        ("https://bob:geheim@host/path", "https://[secret]@host/path"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM.abc-def", "[secret]"),
        ("hf_abcdefghijklmnopq", "[secret]"),
        ("sid AC0123456789abcdef0123456789abcdef", "sid [secret]"),
        ("mail jane.doe+x@mail.example.org now", "mail [e-mail] now"),
        ("call +49 170 1234567.", "call [phone]."),
        ("call +15551234567", "call [phone]"),
        ("from sip:+15551234567@host.example", "from sip:[e-mail]"),
        ("(555) 123-4567 or 555-123-4567", "[phone] or [phone]"),
        ("0170 1234567", "[phone]"),
    ],
)
def test_secrets_are_taken_out(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "call 0123456789abcdef ended after 12.5 s, 3 turns, median voice to voice 480 ms",
        "listening on 127.0.0.1:8000",
        "2026-10-19T14:03:22.123456+00:00",
        "took 1760882602123 ns, 0.1234567 of 1 234 567 bytes",
        "sha256 " + "0123456789abcdef" * 4,
        "commit " + "0123456789" * 4,
        "20/20 tokens, cached 10; max_tokens=200",
        "api_key=None token: [secret]",
        "version 1.2.3-4567",
        "the token was wrong",
    ],
)
def test_the_rest_stays(text: str) -> None:
    assert redact(text) == text


def test_a_long_line_is_not_slow() -> None:
    # Every rule is linear: no nesting of unbounded repeats. A quadratic one would take minutes here.
    for unit in ("a", "1 ", "a-", "token=", "+1", "a@a.", "://a:", "Bearer "):
        assert redact(unit * (200_000 // len(unit)))
