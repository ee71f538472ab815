"""Further verbs of TwiML: recording, playing, waiting, connecting people. Knows no call.

Source: Twilio's TwiML reference for Voice.
"""

from __future__ import annotations

from antiphon.server.phone.twiml import element

REJECT_BUSY = '<Reject reason="busy"/>'
"""For a call that was not taken yet: the caller hears the busy tone, and nobody pays."""


def text_of(*verbs: str) -> str:
    """A whole document, for a REST call that brings its TwiML along."""
    return f"<Response>{''.join(verbs)}</Response>"


def say_in(text: str, language: str) -> str:
    """In a voice of the carrier's. `language`: ISO 639-1, empty: the carrier's choice."""
    return element("Say", text, language=language)


def play(url: str) -> str:
    return element("Play", url)


def pause(seconds: int) -> str:
    return element("Pause", length=str(seconds))


def redirect(url: str) -> str:
    return element("Redirect", url, method="POST")


def dial(number: str) -> str:
    """`number`: E.164, or a SIP address."""
    name = "Sip" if "@" in number else "Number"
    return f"<Dial>{element(name, number)}</Dial>"


def record(action: str, *, silence_s: int, max_s: int) -> str:
    """The caller's words, without a beep, to `action`. After silence alone the next verb is run instead."""
    return element(
        "Record",
        action=action,
        method="POST",
        timeout=str(silence_s),
        maxLength=str(max_s),
        finishOnKey="#",
        playBeep="false",
    )
