"""`/health`, `/ready`, `/gpu`: what an operator's probes ask. Read-only."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from antiphon.models.ports import Kind, ModelStatus
from antiphon.server.admission import Calls, failed_kinds
from antiphon.server.security import gate_of

router = APIRouter(tags=["health"])


def _now() -> str:
    return datetime.now(UTC).isoformat()


@router.get("/health")
async def health() -> dict[str, Any]:
    """The process answers."""
    return {"status": "healthy", "service": "antiphon", "timestamp": _now()}


@router.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, Any]:
    """Calls can be taken: 200, else 503. Each model of each chain with its state and seconds to load.

    `status`: `ready`, `loading`, `failed` (a kind of model is left without any) or `draining` (about to end).
    """
    calls: Calls = request.app.state.calls
    status = calls.models.status()
    overall = _overall(calls, status)
    if overall != "ready":
        response.status_code = 503
    return {
        "status": overall,
        "services": {_service(kind): _ready(status, kind) for kind in Kind if _chain(status, kind)},
        "models": [_describe(link, status, gate_of(request).is_local(request)) for link in status],
        "calls": len(calls),
        "max_calls": calls.settings.server.max_calls,
        "timestamp": _now(),
    }


def _overall(calls: Calls, status: list[ModelStatus]) -> str:
    if calls.draining:
        return "draining"
    if calls.models.ready:
        return "ready"
    return "failed" if failed_kinds(status) else "loading"


def _service(kind: Kind) -> str:
    return "asr" if kind is Kind.STT else kind.value


def _chain(status: list[ModelStatus], kind: Kind) -> list[ModelStatus]:
    return [link for link in status if link.kind is kind]


def _ready(status: list[ModelStatus], kind: Kind) -> bool:
    return any(link.state == "ready" for link in _chain(status, kind))


def _describe(link: ModelStatus, status: list[ModelStatus], is_local: bool) -> dict[str, Any]:
    """What a model or its server said of a failure may name hosts and files: only this machine is told."""
    chain = _chain(status, link.kind)
    error = link.error if is_local or not link.error else "the server's log says why"
    return {
        "kind": link.kind.value,
        "name": link.name,
        "state": link.state,
        "detail": link.detail if is_local else link.detail.partition(" at ")[0],
        "load_s": None if link.load_s is None else round(link.load_s, 2),
        "in_use": link.in_use,
        "fallback": link.in_use and chain[0] is not link,
        "error": error or None,
    }


@router.get("/gpu")
async def gpu() -> dict[str, Any]:
    """NVIDIA devices by NVML; an honest "none" where there is no driver."""
    return await asyncio.to_thread(_read_nvml)


def _read_nvml() -> dict[str, Any]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"available": False, "devices": [], "reason": f"no NVIDIA driver: {error}"}
    try:
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            devices.append(
                {
                    "index": index,
                    "name": str(pynvml.nvmlDeviceGetName(handle)),
                    "memory_total_bytes": int(memory.total),
                    "memory_used_bytes": int(memory.used),
                    "utilisation_percent": int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
                }
            )
        return {"available": bool(devices), "devices": devices}
    except pynvml.NVMLError as error:
        return {"available": False, "devices": [], "reason": str(error)}
    finally:
        pynvml.nvmlShutdown()
