"""Plans and manifest of the Ray application, as far as they can be checked without Ray. tests/backends/ray runs it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml

from antiphon.config import load
from antiphon.server.model_loading import check_models

FOLDER = Path(__file__).parents[2] / "deploy/ray"
KINDS = ("stt", "llm", "tts")


def plans() -> list[dict[str, Any]]:
    service = yaml.safe_load((FOLDER / "rayservice.yaml").read_text(encoding="utf-8"))
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    return [
        yaml.safe_load((FOLDER / "serve.yaml").read_text(encoding="utf-8")),
        yaml.safe_load(service["spec"]["serveConfigV2"]),
    ]


def fields(name: str) -> set[str]:
    tree = ast.parse((FOLDER / "app.py").read_text(encoding="utf-8"))
    (found,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    return {
        node.target.id
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def test_plans_say_only_what_the_application_takes() -> None:
    for plan in plans():
        (application,) = plan["applications"]
        assert application["import_path"] == "deploy.ray.app:app"
        arguments = application["args"]
        assert set(arguments) <= fields("Plan")
        for kind in ("calls", *KINDS):
            assert set(arguments[kind]) <= fields("Size")


def test_the_settings_of_the_plans_load(tmp_path: Path) -> None:
    for plan in plans():
        settings = plan["applications"][0]["args"]["settings"]
        check_models(load(settings, folder=tmp_path))


def test_gpu_nodes_of_the_manifest_hold_one_replica_of_each_model() -> None:
    service = yaml.safe_load((FOLDER / "rayservice.yaml").read_text(encoding="utf-8"))
    groups = {g["groupName"]: g for g in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    (container,) = groups["models"]["template"]["spec"]["containers"]
    limits = container["resources"]["limits"]
    arguments = plans()[1]["applications"][0]["args"]
    assert sum(arguments[kind]["num_gpus"] for kind in KINDS) <= float(limits["nvidia.com/gpu"])
    assert sum(arguments[kind]["num_cpus"] for kind in KINDS) <= float(limits["cpu"])
    # No GPU node can take the calls with it.
    assert "calls" in arguments["calls"]["resources"]
    assert "calls" in groups["calls"]["rayStartParams"]["resources"]
