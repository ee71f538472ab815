"""Antiphon on a Ray cluster of three nodes on this machine: calls on the head, each model twice on the others."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support import OPTIONS

ROOT = Path(__file__).resolve().parents[3]
STORE_BYTES = 100_000_000
SETTINGS: dict[str, Any] = {
    **{f"models.{kind}": "scripted" for kind in ("vad", "turn", "stt", "llm", "tts")},
    "models.options.stt.scripted": OPTIONS["stt"],
    "models.options.llm.scripted": OPTIONS["llm"],
    # Slower than it is heard, so that a replica can die in mid-clause.
    "models.options.tts.scripted": {"word_ms": 100, "rate_hz": 24_000, "piece_delay_ms": 60},
    "conversation.greeting": "",
    "conversation.idle_prompt_after_ms": 0,
}


@dataclass
class Grid:
    """The cluster, and the address of its calls."""

    cluster: Any
    port: int
    nodes: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add_node(self) -> Any:
        node = self.cluster.add_node(
            num_cpus=6, resources={"models": 100}, object_store_memory=STORE_BYTES
        )
        self.nodes.append(node)
        return node


@pytest.fixture(scope="session")
def grid() -> Iterator[Grid]:
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from deploy.ray.app import Plan, Size, app
    from ray import serve
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 4,
            "resources": {"calls": 100},
            "object_store_memory": STORE_BYTES,
            "include_dashboard": False,
        },
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = Grid(cluster, free.getsockname()[1])
    found.add_node()
    found.add_node()
    ray.init(
        address=cluster.address,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "ANTIPHON_HOME": "/nowhere"}},
    )
    try:
        serve.start(
            proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": found.port}
        )
        model = Size(num_cpus=0.5, resources={"models": 1}, min_replicas=2, max_replicas=2)
        plan = Plan(
            settings=SETTINGS,
            calls=Size(resources={"calls": 1}, queued=16),
            stt=model,
            llm=model,
            tts=model,
        )
        serve.run(app(plan), name="antiphon")
        yield found
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
