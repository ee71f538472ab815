"""`antiphon dial`: has the running server make a call, and says how it goes until it is over.

The server holds the agent, the tokens and the webhooks, so it makes the call; this command only asks it to.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from antiphon.errors import AntiphonError, ConfigError
from antiphon.files import read_toml

if TYPE_CHECKING:
    import httpx

_POLL_S = 1.0
_PATIENCE_S = 20.0
_MAX_AGENT_BYTES = 100_000
_GOOD = "completed"


def dial(
    number: Annotated[str, typer.Argument(help="Whom to call: +15550100, or a SIP address.")],
    agent: Annotated[
        Path | None, typer.Option("--agent", help="TOML file: prompt, greeting, voice, ...")
    ] = None,
    from_number: Annotated[
        str, typer.Option("--from", help="Caller ID; default: phone.from_number.")
    ] = "",
    record: Annotated[bool | None, typer.Option(help="Have Twilio record the call.")] = None,
    amd: Annotated[
        bool, typer.Option("--amd", help="Have Twilio listen for an answering machine first.")
    ] = False,
    server: Annotated[
        str, typer.Option("--server", help="The running server; default: by the settings.")
    ] = "",
    wait: Annotated[bool, typer.Option(help="Stay until the call is over.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, as section.name=value.")
    ] = None,
) -> None:
    """Call somebody, by the server that `antiphon serve` runs. Ends with 1 when nobody took the call."""
    import httpx

    from antiphon.cli.common import settings_with

    settings = settings_with(sets or [])
    order = {
        "to": number,
        "from_number": from_number,
        "record": record,
        "amd": amd,
        "agent": read_agent(agent) if agent is not None else {},
    }
    base = (server or _address(settings.server.host, settings.server.port)).rstrip("/")
    key = settings.security.api_key.get_secret_value().partition(",")[0].strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=base, headers=headers, timeout=_PATIENCE_S) as http:
        state = _ask(http, "POST", "/calls", order)
        if not as_json:
            typer.echo(f"calling {state['to']}, {state['call_sid']}")
        if wait:
            state = _follow(http, state, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(state, ensure_ascii=False, indent=2))
    if wait and state["status"] != _GOOD:
        raise typer.Exit(1)


def read_agent(path: Path) -> dict[str, Any]:
    """What the file says of the agent; a table `[agent]` or its keys alone. Raises ConfigError."""
    tree = read_toml(path, max_bytes=_MAX_AGENT_BYTES)
    found = tree.get("agent", tree)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: `agent` is a table: [agent]")
    return found


def _follow(http: httpx.Client, state: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Ask until the call is over, and print each change."""
    told = ("", "")
    while True:
        now = (state["status"], state["answered_by"])
        if now != told and not quiet:
            typer.echo("  ".join(part for part in now if part))
        told = now
        if state["over"]:
            if state["duration_s"] is not None and not quiet:
                typer.echo(f"{state['duration_s']} s")
            return state
        time.sleep(_POLL_S)
        state = _ask(http, "GET", f"/calls/{state['id']}", None)


def _ask(http: httpx.Client, method: str, path: str, body: Any) -> dict[str, Any]:
    """Raises AntiphonError with what the server says."""
    import httpx

    try:
        answer = http.request(method, path, json=body)
        found = answer.json()
    except httpx.HTTPError as error:
        raise AntiphonError(
            f"no server at {http.base_url} ({type(error).__name__}); run `antiphon serve`, or name it with --server"
        ) from None
    except ValueError:
        raise AntiphonError(f"{http.base_url} is not an Antiphon server; see --server") from None
    if not answer.is_success or not isinstance(found, dict):
        raise AntiphonError(_reason(found, answer.status_code))
    return found


def _reason(body: Any, status: int) -> str:
    detail = body.get("detail", body.get("error", "")) if isinstance(body, dict) else ""
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):  # a field that is wrong
        where = ".".join(str(part) for part in detail[0].get("loc", ())[1:])
        detail = f"{where}: {detail[0].get('msg', '')}"
    if isinstance(detail, dict):
        detail = detail.get("message", "")
    return str(detail) or f"the server answered {status}; its log says why"


def _address(host: str, port: int) -> str:
    if host in ("0.0.0.0", "::", ""):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
