"""The documentation's tables name every event of the package, once, and count right."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.protocols.realtime.make_schemas import PATH

PAGE = (Path(__file__).parents[3] / "docs/protocols/realtime.md").read_text()


def table(heading: str) -> dict[str, str]:
    """Event -> what the second column says."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [row.split(" | ") for row in section.splitlines() if row.startswith("| `")]
    return {name: row[1] for row in rows for name in re.findall(r"`([^`]+)`", row[0])}


def test_client_events() -> None:
    schemas = json.loads(PATH.read_text())
    found = table("Client events")
    assert set(found) == set(schemas["ga client"]) | set(schemas["beta client"])
    assert list(found.values()).count("yes") == 11
    assert "11 of 11 in the GA dialect; 12 of 12 in beta." in PAGE


def test_server_events() -> None:
    schemas = json.loads(PATH.read_text())
    found = table("Server events")
    assert set(found) == set(schemas["ga server"])
    sent = list(found.values())
    counts = [sent.count(word) for word in ("yes", "beta", "no")]
    assert counts == [34, 2, 10]
    assert "34 of 46 in the GA dialect; 2 more are beta's; 10 are never sent." in PAGE
