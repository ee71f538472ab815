"""What `antiphon doctor` looks at: each check says what it found and what to do about it.

Checks only look: nothing is loaded, fetched, bound for longer than a moment, or changed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from antiphon.config import Settings
from antiphon.errors import AntiphonError, ModelError
from antiphon.models.ports import Kind
from antiphon.models.registry import parse_spec, shared_registry
from antiphon.models.store import WeightStore, offline_variable

OK, WARN, FAIL = "ok", "warn", "fail"
_GIB = 1 << 30
_LITTLE_MEMORY_BYTES = 2 * _GIB
"""The default set takes about 1 GiB once it is loaded."""
_ENDPOINT_TIMEOUT_S = 4.0

_NEEDS = {
    "webrtc": ("webrtcvad", "webrtc"),
    "faster-whisper": ("faster_whisper", "faster-whisper"),
    "transformers": ("transformers", "transformers"),
    "transformers-whisper": ("transformers", "transformers"),
    "kyutai-transformers": ("transformers", "transformers"),
    "nemo": ("nemo", "nemo"),
    "mlx-whisper": ("mlx_whisper", "mlx-whisper"),
    "vllm-engine": ("vllm", "vllm"),
    "xtts": ("TTS", "coqui"),
    "coqui": ("TTS", "coqui"),
    "chatterbox": ("chatterbox", "chatterbox"),
    "moshi": ("moshi", "moshi"),
    "edge-tts": ("edge_tts", "edge-tts"),
}
"""Back end -> a module it cannot load without, and the extra that brings it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    check: str
    """What was looked at, e.g. `port`."""
    state: str
    """`ok`, `warn` (it works, not as well as it could) or `fail`."""
    found: str
    todo: str = ""
    """Empty when there is nothing to do."""


# --- the installation -------------------------------------------------------------------------------


def check_python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        yield Finding("python", OK, version)
    else:
        yield Finding(
            "python", FAIL, f"{version} is not supported", "use Python 3.11, 3.12 or 3.13"
        )


def check_packages() -> Iterator[Finding]:
    """What Antiphon needs, and each extra: is it there, and can it be imported?"""
    try:
        wanted = metadata.requires("antiphon") or []
    except metadata.PackageNotFoundError:
        yield Finding(
            "packages", WARN, "Antiphon itself is not installed", "run: pip install antiphon"
        )
        return
    extras: dict[str, list[str]] = {}
    for requirement in wanted:
        named = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        if named is not None and _for_this_platform(requirement):
            extras.setdefault(extra[1] if extra else "", []).append(named[0])
    modules = _modules_by_package()
    for extra_name, packages in sorted(extras.items()):
        if extra_name != "dev":
            yield _check_extra(extra_name, packages, modules)


def _check_extra(extra: str, packages: Sequence[str], modules: dict[str, list[str]]) -> Finding:
    check = f"extra {extra}" if extra else "packages"
    install = f"pip install 'antiphon[{extra}]'" if extra else "pip install antiphon"
    missing = [name for name in packages if _normal(name) not in modules]
    if missing and extra:
        return Finding(check, OK, f"not installed; to have it run: {install}")
    if missing:
        return Finding(check, FAIL, f"{', '.join(missing)} not installed", f"run: {install}")
    for package in packages:
        for module in modules[_normal(package)]:
            if reason := _import_error(module):
                state = WARN if extra else FAIL
                todo = f"reinstall it: {install} --force-reinstall --no-deps {package}"
                return Finding(check, state, f"{package} cannot be imported: {reason}", todo)
    return Finding(check, OK, f"{len(packages)} package{'s' * (len(packages) != 1)} importable")


def _for_this_platform(requirement: str) -> bool:
    """Of the markers that Antiphon uses itself."""
    marker = re.search(r"sys_platform\s*(==|!=)\s*['\"]([^'\"]+)", requirement)
    return marker is None or (marker[1] == "==") == (sys.platform == marker[2])


def _modules_by_package() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for package in set(packages):
            names = found.setdefault(_normal(package), [])
            if module.isidentifier() and not module.startswith("_"):
                names.append(module)
    return found


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _import_error(module: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - foreign code may raise anything while it is imported
        return _line(error)
    return ""


# --- what it is told, and what it needs -------------------------------------------------------------


def check_models(settings: Settings) -> Iterator[Finding]:
    """The models that are named exist, and their weights are here."""
    from antiphon.server.model_loading import chains

    store = WeightStore()
    try:
        found = chains(settings)
    except AntiphonError as error:
        yield Finding("models", FAIL, _line(error), "correct the setting")
        return
    for chain in found:
        for place, spec in enumerate(chain.specs):
            check = f"{chain.kind.value} {spec}"
            try:
                entry = _weights_of(chain.kind, spec, chain.options, store)
                _check_needs(parse_spec(spec)[0])
            except AntiphonError as error:
                state = WARN if place else FAIL
                yield Finding(check, state, _line(error), f"or correct models.{chain.kind.value}")
                continue
            yield _check_weights(check, entry, store)


def _weights_of(kind: Kind, spec: str, options: Any, store: WeightStore) -> str:
    """Name of the catalogue entry that a model loads; empty when it needs none of ours."""
    name, weights = parse_spec(spec)
    entry = shared_registry().find(kind, name)
    parameters = inspect.signature(entry.resolve()).parameters
    model = parameters.get("model")
    default = model.default if model is not None else ""
    chosen = weights or {**entry.options, **options.get(name, {})}.get("model", default)
    return chosen if chosen in {known.name for known in store.catalogue} else ""


def _check_needs(name: str) -> None:
    module, extra = _NEEDS.get(name, ("", ""))
    if module and importlib.util.find_spec(module) is None:
        raise ModelError(f"{module} is not installed; run: pip install 'antiphon[{extra}]'")


def _check_weights(check: str, entry: str, store: WeightStore) -> Finding:
    if not entry:
        return Finding(check, OK, "known; it has no weights of ours")
    state = store.state(entry)
    if state == "present":
        return Finding(check, OK, f"weights {entry} are here")
    todo = f"run: antiphon models pull {entry}"
    if offline := offline_variable():
        return Finding(
            check, FAIL, f"weights {entry} are {state}, {offline}", f"unset it and {todo}"
        )
    return Finding(check, WARN, f"weights {entry} are {state}; fetched at the next start", todo)


def check_port(settings: Settings) -> Iterator[Finding]:
    """Can the server listen where it is told to?"""
    host, port = settings.server.host, settings.server.port
    where = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        yield Finding("port", FAIL, f"{host} is no address: {_line(error)}", "set server.host")
        return
    with socket.socket(family, kind, protocol) as trial:
        # As the server does it: a port in TIME_WAIT is free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
            trial.listen(1)
        except PermissionError:
            todo = "choose one above 1023 with server.port"
            yield Finding("port", FAIL, f"{where} needs privileges", todo)
        except OSError as error:
            todo = "stop what listens there (another antiphon?) or choose another with server.port"
            yield Finding("port", FAIL, f"{where}: {_line(error)}", todo)
        else:
            yield Finding("port", OK, f"{where} is free")


def check_endpoints(settings: Settings) -> Iterator[Finding]:
    """Does every HTTP endpoint that the language models name answer?"""
    from antiphon.server.model_loading import chains

    try:
        llm = next(chain for chain in chains(settings) if chain.kind is Kind.LLM)
    except (AntiphonError, StopIteration):
        return
    for spec in llm.specs:
        name, model = parse_spec(spec)
        try:
            entry = shared_registry().find(Kind.LLM, name)
        except AntiphonError:
            continue  # told by check_models
        options = {**entry.options, **llm.options.get(name, {})}
        if "base_url" in options:
            wanted = model or str(options.get("model", ""))
            yield ask_endpoint(str(options["base_url"]), str(options.get("api_key", "")), wanted)


def ask_endpoint(base_url: str, api_key: str, model: str) -> Finding:
    """Ask an OpenAI-compatible endpoint for its models."""
    import httpx

    check = f"endpoint {base_url}"
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx.get(
            f"{base_url.rstrip('/')}/models",
            headers=headers,
            timeout=_ENDPOINT_TIMEOUT_S,
            follow_redirects=True,
        )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        found = f"does not answer: {_line(error) or type(error).__name__}"
        return Finding(check, FAIL, found, "start it, or correct endpoint.base_url")
    if answer.status_code in (401, 403):
        return Finding(check, FAIL, "refuses the key", "set endpoint.api_key")
    if answer.status_code == 404:
        todo = "most base addresses end in /v1: check endpoint.base_url"
        return Finding(check, WARN, "answers, but has no list of models", todo)
    if answer.is_error:
        return Finding(check, FAIL, f"answers {answer.status_code}", "look at its own log")
    known = _model_names(answer)
    if model and known and model not in known:
        some = ", ".join(known[:5])
        return Finding(check, FAIL, f"has no model {model!r}; it has {some}", "set endpoint.model")
    return Finding(check, OK, "answers")


def _model_names(answer: Any) -> list[str]:
    try:
        return [str(item["id"]) for item in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return []


# --- the machine ------------------------------------------------------------------------------------


def check_machine() -> Iterator[Finding]:
    cores = _cores()
    if cores < 2:
        yield Finding("processor", WARN, "1 core", "the embedded models want 2 for one call")
    else:
        yield Finding("processor", OK, f"{cores} cores")
    free_bytes = _free_memory_bytes()
    if free_bytes is not None:
        found = f"{free_bytes / _GIB:.1f} GiB free"
        little = free_bytes < _LITTLE_MEMORY_BYTES
        todo = "close something, or choose a smaller language model" if little else ""
        yield Finding("memory", WARN if little else OK, found, todo)
    yield _check_gpu()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_memory_bytes() -> int | None:
    try:
        found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _check_gpu() -> Finding:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Finding("gpu", OK, f"none ({_line(error)}); the embedded models need none")
    try:
        devices = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        told = [
            f"{pynvml.nvmlDeviceGetName(device)}, "
            f"{pynvml.nvmlDeviceGetMemoryInfo(device).free / _GIB:.1f} GiB free"
            for device in devices
        ]
    except pynvml.NVMLError as error:
        return Finding("gpu", WARN, _line(error), "check the driver with nvidia-smi")
    finally:
        pynvml.nvmlShutdown()
    return Finding("gpu", OK, "; ".join(told) or "none; the embedded models need none")


def check_sound() -> Iterator[Finding]:
    """Microphone and loudspeaker, for `antiphon talk`. Nothing where its extra is not installed."""
    if importlib.util.find_spec("sounddevice") is None:
        return
    try:
        import sounddevice

        devices = list(sounddevice.query_devices())
    except Exception as error:  # noqa: BLE001 - PortAudio and its driver raise what they like
        todo = "install PortAudio (on Debian: apt-get install libportaudio2)"
        yield Finding("sound", WARN, f"no sound devices: {_line(error)}", todo)
        return
    for name, channels in (
        ("microphone", "max_input_channels"),
        ("loudspeaker", "max_output_channels"),
    ):
        usable = [device["name"] for device in devices if device[channels] > 0]
        if usable:
            yield Finding(name, OK, f"{len(usable)} found, for instance {usable[0]}")
        else:
            todo = "connect one, or use antiphon talk --input FILE --output FILE"
            yield Finding(name, WARN, "none", todo)


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())
