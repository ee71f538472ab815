"""What an agent may do on the line: hang up, transfer, press keys, wait for keys.

Each waits until the agent has finished speaking: what it said when it called the function is what the caller hears
first.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from antiphon.audio.dtmf import tones
from antiphon.call.tools import Tool
from antiphon.core import events as ev
from antiphon.core.floor import Floor
from antiphon.errors import AntiphonError, AudioError, ToolError
from antiphon.protocols.twilio.media_output import TwilioTransport
from antiphon.protocols.twilio.phone_services import Lines
from antiphon.telephony.keypad import MAX_KEYS, Keypad, Wanted

log = logging.getLogger(__name__)


_SPOKEN_S = 30.0
"""For what the agent is saying when it calls a function."""
_LONGEST_WAIT_S = 30.0
_MAX_WORDS_CHARS = 500
_TRANSFER_S = 20.0
_USUAL = ("hang_up", "transfer_call")


class PhoneTools:
    """Of one call. `post`: to its call."""

    def __init__(
        self,
        transport: TwilioTransport,
        keypad: Keypad,
        post: Callable[[ev.Event], None],
        call_id: str,
        lines: Lines | None,
        transfer_numbers: tuple[str, ...],
    ) -> None:
        self._transport = transport
        self._keypad = keypad
        self._post = post
        self._call_id = call_id
        self._lines = lines
        self._numbers = numbers_by_name(transfer_numbers)

    def chosen(self, names: tuple[str, ...], calls_functions: bool = True) -> tuple[Tool, ...]:
        """Those of the names that can work: there is no transfer without numbers and a switchboard.

        `calls_functions`: of the language model; without, it gets only what was named for it.
        """
        if "auto" in names and calls_functions:
            names = (*names, *_USUAL)
        tools = [self._hang_up_tool(), self._send_digits_tool(), self._collect_digits_tool()]
        if self._lines is not None and self._numbers:
            tools.append(self._transfer_tool())
        return tuple(tool for tool in tools if tool.name in names)

    # -- hanging up -----------------------------------------------------------------------------

    def _hang_up_tool(self) -> Tool:
        words = {"type": "string", "description": "Last words, if not said yet."}
        return Tool(
            "hang_up",
            "End the call, once the caller has said goodbye or asks for it.",
            self._hang_up,
            {"type": "object", "properties": {"goodbye": words}},
            time_limit_s=_SPOKEN_S + 5,
        )

    async def _hang_up(self, arguments: Mapping[str, Any]) -> str:
        goodbye = _words(arguments, "goodbye")
        said = self._transport.has_words and not goodbye
        await self._transport.quiet(_SPOKEN_S)
        reason = "the agent hung up"
        self._post(ev.Finish(reason, not said, goodbye, unless_caller_speaks=True))
        return "The call ends now, unless the caller goes on."

    # -- transfer -------------------------------------------------------------------------------

    def _transfer_tool(self) -> Tool:
        known = {"type": "string", "enum": sorted(self._numbers)}
        words = {"type": "string", "description": "Said first."}
        return Tool(
            "transfer_call",
            "Connect the caller with somebody else. Ends this conversation.",
            self._transfer,
            {
                "type": "object",
                "properties": {"to": known, "announcement": words},
                "required": ["to"],
            },
            time_limit_s=2 * _SPOKEN_S + _TRANSFER_S,
        )

    async def _transfer(self, arguments: Mapping[str, Any]) -> str:
        number = self._numbers.get(str(arguments.get("to", "")))
        if number is None:
            raise ToolError(f"calls may be transferred to {', '.join(sorted(self._numbers))} only")
        assert self._lines is not None
        await self._speak(_words(arguments, "announcement"))
        try:
            async with asyncio.timeout(_TRANSFER_S):
                await self._lines.transfer(self._call_id, number)
        except (AntiphonError, TimeoutError) as error:
            log.warning(
                "phone: %s could not be transferred: %s", self._call_id, error or "no answer"
            )
            raise ToolError("the call could not be transferred; the caller is still here") from None
        return "The caller is being connected."

    # -- keys -----------------------------------------------------------------------------------

    def _send_digits_tool(self) -> Tool:
        keys = {"type": "string", "description": "0-9, *, #, comma for a pause"}
        return Tool(
            "send_digits",
            "Press keys on this line, for another machine's menu.",
            self._send_digits,
            {"type": "object", "properties": {"digits": keys}, "required": ["digits"]},
            time_limit_s=_SPOKEN_S + 30,
        )

    async def _send_digits(self, arguments: Mapping[str, Any]) -> str:
        digits = re.sub(r"\s", "", str(arguments.get("digits", "")))
        if not 0 < len(digits) <= MAX_KEYS:
            raise ToolError(f"give 1 to {MAX_KEYS} digits")
        try:
            pcm = tones(digits, self._transport.audio.rate_hz)
        except AudioError as error:
            raise ToolError(str(error)) from None
        if not await self._transport.quiet(_SPOKEN_S):
            raise ToolError("the line is not free; try again")
        self._transport.play_sound(pcm)
        await asyncio.sleep(len(pcm) / self._transport.audio.rate_hz)
        return f"Pressed {digits}."

    def _collect_digits_tool(self) -> Tool:
        return Tool(
            "collect_digits",
            "Wait for the caller to press keys: a PIN, a customer number.",
            self._collect_digits,
            {
                "type": "object",
                "properties": {
                    "prompt": {"type": "string", "description": "Said first."},
                    "max_digits": {"type": "integer", "minimum": 1, "maximum": MAX_KEYS},
                    "terminator": {
                        "type": "string",
                        "description": "Key that ends it, # if not given",
                    },
                    "wait_s": {"type": "number", "minimum": 1, "maximum": _LONGEST_WAIT_S},
                },
            },
            # Long enough for every key to come at the last moment.
            time_limit_s=_SPOKEN_S * 2 + _LONGEST_WAIT_S * 4,
            filler="Go ahead, press the keys.",
        )

    async def _collect_digits(self, arguments: Mapping[str, Any]) -> str:
        terminator = str(arguments.get("terminator", "#"))[:1].upper()
        first_s = min(max(float(arguments.get("wait_s", 15.0)), 1.0), _LONGEST_WAIT_S)
        most = min(max(int(arguments.get("max_digits", MAX_KEYS)), 1), MAX_KEYS)
        waiting = self._keypad.collect(Wanted(most, terminator, first_s + _SPOKEN_S))
        try:
            # Keys count while the prompt is being said: a press stops it.
            await self._speak(_words(arguments, "prompt"))
            self._keypad.expect_within(first_s)
            collected = await waiting
        finally:
            waiting.cancel()
        return json.dumps({"digits": collected.digits, "ended_by": collected.ended_by})

    async def _speak(self, words: str) -> None:
        """Let the agent finish, and say this if there is anything."""
        await self._transport.quiet(_SPOKEN_S)
        if words and self._transport.floor is Floor.OPEN:
            self._post(ev.Say(words))
            await self._transport.quiet(_SPOKEN_S)


def numbers_by_name(entries: tuple[str, ...]) -> dict[str, str]:
    """`sales=+15550100` or `+15550100` each -> what the model may say, and the number it stands for."""
    named: dict[str, str] = {}
    for entry in entries:
        name, _, number = entry.rpartition("=")
        named[name.strip() or _bare(number)] = _bare(number)
    return named


def _bare(number: str) -> str:
    return number.strip() if "@" in number else re.sub(r"[^\d+]", "", number)


def _words(arguments: Mapping[str, Any], name: str) -> str:
    return str(arguments.get(name) or "").strip()[:_MAX_WORDS_CHARS]
