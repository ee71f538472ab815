"""The systemd units of the server and of the model services, as text.

What an option is for: systemd.exec(5), systemd.service(5), systemd.socket(5).
"""

from __future__ import annotations

from dataclasses import dataclass

STOP_MARGIN_S = 40
"""After the drain: calls are told to end, connections closed, models unloaded."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the units are to be written."""

    program: str
    """Path of the command `antiphon`."""
    host: str = "127.0.0.1"
    port: int = 8000
    user: bool = False
    """For the manager of one user, who owns the models and the settings; else for the system's."""
    gpu: bool = False
    """Devices of the machine can be reached."""
    drain_s: int = 120


def units(choice: Choice) -> dict[str, str]:
    """File name -> text."""
    return {
        "antiphon.socket": _socket(choice),
        "antiphon.service": _server(choice),
        "antiphon-service@.service": _service(choice),
    }


def environment_file(choice: Choice) -> str:
    """The first text of `antiphon.env`; it holds secrets, so nobody else may read it."""
    folder = "~/.config/antiphon" if choice.user else "/etc/antiphon"
    return f"""\
# Settings of antiphon.service; those of antiphon-service@stt are in service-stt.env. NAME=value, see env.example.
# A file of settings: make it readable for everybody, without secrets in it.
# ANTIPHON_CONFIG={folder}/antiphon.toml
# The key that clients must send; without one only this machine is served.
# ANTIPHON_API_KEY=
"""


def _socket(choice: Choice) -> str:
    host = f"[{choice.host}]" if ":" in choice.host else choice.host
    return f"""\
[Unit]
Description=Port of the Antiphon voice agent server
Documentation=https://github.com/antiphon/antiphon

[Socket]
# Held by systemd: who connects during a restart waits for the new process instead of being refused.
ListenStream={host}:{choice.port}
NoDelay=true
Backlog=128

[Install]
WantedBy=sockets.target
"""


def _server(choice: Choice) -> str:
    wanted = "default.target" if choice.user else "multi-user.target"
    return f"""\
[Unit]
Description=Antiphon voice agent server
Documentation=https://github.com/antiphon/antiphon
Requires=antiphon.socket
After=antiphon.socket network-online.target
Wants=network-online.target
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
ExecStart={choice.program} serve
{_common(choice, "antiphon.env")}
[Install]
WantedBy={wanted}
Also=antiphon.socket
"""


def _service(choice: Choice) -> str:
    wanted = "default.target" if choice.user else "multi-user.target"
    return f"""\
[Unit]
Description=Antiphon model service: %i
Documentation=https://github.com/antiphon/antiphon
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
# %i: stt, tts or llm, on ports 8090, 8089 and 8091
ExecStart={choice.program} service %i
{_common(choice, "service-%i.env")}
[Install]
WantedBy={wanted}
"""


def _common(choice: Choice, environment: str) -> str:
    return f"""\
EnvironmentFile=-%E/antiphon/{environment}
Environment=PYTHONUNBUFFERED=1
Environment=DO_NOT_TRACK=1 ORT_DISABLE_TELEMETRY=1 HF_HUB_DISABLE_TELEMETRY=1
# One JSON object a line for the journal: journalctl -u antiphon -o cat | jq
Environment=ANTIPHON_SERVER__LOG_FORMAT=json
Environment=ANTIPHON_SERVER__DRAIN_S={choice.drain_s}
Environment=ANTIPHON_HOME=%C/antiphon
Environment=HF_HOME=%C/antiphon/hub
StateDirectory=antiphon
CacheDirectory=antiphon
WorkingDirectory=%S/antiphon
Restart=on-failure
RestartSec=2
# Told to stop, it takes no more calls and waits {choice.drain_s} s for those that are on. Kill later than that.
KillSignal=SIGTERM
KillMode=mixed
TimeoutStopSec={choice.drain_s + STOP_MARGIN_S}
LimitNOFILE=65536

{_hardening(choice)}"""


def _hardening(choice: Choice) -> str:
    """Left out on purpose: MemoryDenyWriteExecute (torch compiles), ProcSubset=pid (memory and cores are read)."""
    lines = [
        "UMask=0077",
        "NoNewPrivileges=yes",
        "LockPersonality=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallErrorNumber=EPERM",
    ]
    if choice.user:
        return "\n".join([*lines, ""])
    devices = (
        ["# The GPU's devices are to be reached: PrivateDevices would hide them"]
        if choice.gpu
        else ["PrivateDevices=yes"]
    )
    return "\n".join(
        [
            "# Nobody in particular: a user that exists while it runs",
            "DynamicUser=yes",
            "StateDirectoryMode=0700",
            "CacheDirectoryMode=0700",
            *lines,
            "SystemCallFilter=~@privileged",
            "CapabilityBoundingSet=",
            "AmbientCapabilities=",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            *devices,
            "ProtectProc=invisible",
            "ProtectClock=yes" if not choice.gpu else "# ProtectClock would close /dev as well",
            "ProtectHostname=yes",
            "ProtectKernelLogs=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelTunables=yes",
            "ProtectControlGroups=yes",
            "RemoveIPC=yes",
            "KeyringMode=private",
            "",
        ]
    )
