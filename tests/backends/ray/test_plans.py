"""Plans through Serve's own schema and ours. No cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray")

from deploy.ray.app import Plan, app
from ray.serve.schema import ServeDeploySchema

from antiphon.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "ray"


def configurations() -> list[dict[str, Any]]:
    service = yaml.safe_load((FOLDER / "rayservice.yaml").read_text(encoding="utf-8"))
    plan = yaml.safe_load((FOLDER / "serve.yaml").read_text(encoding="utf-8"))
    return [plan, yaml.safe_load(service["spec"]["serveConfigV2"])]


@pytest.mark.parametrize("found", configurations(), ids=["serve.yaml", "rayservice.yaml"])
def test_serve_takes_the_configuration(found: dict[str, Any]) -> None:
    schema = ServeDeploySchema.model_validate(found)
    (application,) = schema.applications
    assert app(Plan.model_validate(application.args))


def test_a_slip_of_the_pen_is_told_before_anything_starts() -> None:
    with pytest.raises(ValueError, match="num_gpu"):
        Plan.model_validate({"stt": {"num_gpu": 1}})
    with pytest.raises(ConfigError, match="conversation"):
        app(Plan(settings={"conversation.greting": "hello"}))


def test_admission_follows_the_settings() -> None:
    bound = app(Plan(settings={"server.max_calls": 50}))
    ingress = bound._bound_deployment
    assert ingress.max_ongoing_requests > 50
    assert ingress.max_queued_requests == 16
