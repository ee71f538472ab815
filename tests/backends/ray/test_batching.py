"""The STT replica's batches, without a cluster: the deployment's own class in Serve's local testing mode."""

from __future__ import annotations

import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("ray")

from ray import serve
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve._private.config import DeploymentConfig
from ray.serve.context import ReplicaContext
from ray.serve.schema import ReplicaRank

from antiphon.errors import ModelError
from antiphon.models.ports import Pcm16, Transcript
from antiphon.models.registry import register_model

APP = Path(__file__).resolve().parents[3] / "deploy" / "ray" / "app.py"
LONG = np.ones(29 * 16_000, np.int16)


def utterance(number: int) -> Pcm16:
    return np.full(100, number, np.int16)


@register_model("stt", "batching")
class Batching:
    """Hears the first sample. The first batch waits until `go`."""

    go: ClassVar[threading.Event] = threading.Event()
    batches: ClassVar[list[tuple[str | None, int]]] = []
    alone: ClassVar[list[int]] = []
    broken: ClassVar[bool] = False

    def load(self) -> None:
        pass

    def transcribe(self, audio: Pcm16, *, language: str | None = None) -> Transcript:
        self.alone.append(audio.size)
        return Transcript(str(audio[0]), language)

    def transcribe_batch(
        self, audios: Sequence[Pcm16], *, language: str | None = None
    ) -> list[Transcript]:
        self.batches.append((language, len(audios)))
        if self.broken:
            raise ModelError("too much at once")
        self.go.wait(10)
        return [Transcript(str(audio[0]), language) for audio in audios]


@pytest.fixture(scope="module")
def stt() -> Iterator[Any]:
    """A handle of the deployment, in this process: Serve's own mode for tests.

    Of a module of its own: a class that has been at work cannot be sent to a cluster any more.
    """
    spec = importlib.util.spec_from_file_location("ray_app_at_work", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    plan = module.Plan(settings={"models.stt": "batching"}, stt_batch=4, stt_batch_wait_s=0.5)
    # Batching asks for it, and the local testing mode of Ray 2.60 does not set it.
    here = ReplicaContext(
        replica_id=ReplicaID("1", DeploymentID("Stt", "batching")),
        servable_object=lambda: None,
        _deployment_config=DeploymentConfig(max_ongoing_requests=8),
        rank=ReplicaRank(rank=0, node_rank=0, local_rank=0),
        world_size=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray_app_at_work", module)
        patch.setattr(serve.context, "_INTERNAL_REPLICA_CONTEXT", here)
        deployment = module.Stt.bind(plan)
        yield serve.run(deployment, name="batching", route_prefix=None, _local_testing_mode=True)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> type[Batching]:
    for name, value in (("go", threading.Event()), ("batches", []), ("alone", [])):
        monkeypatch.setattr(Batching, name, value)
    return Batching


def until(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def test_utterances_of_several_callers_are_heard_in_one_pass(
    stt: Any, model: type[Batching]
) -> None:
    first = stt.transcribe.remote(utterance(1), "en", False)
    until(lambda: model.batches)
    others = [stt.transcribe.remote(utterance(n), "en", False) for n in (2, 3)]
    french = stt.transcribe.remote(utterance(4), "fr", False)
    model.go.set()
    heard = [response.result() for response in (first, *others, french)]
    assert [transcript.text for transcript in heard] == ["1", "2", "3", "4"]
    assert [transcript.language for transcript in heard] == ["en", "en", "en", "fr"]
    assert model.batches[0] == ("en", 1)
    assert sorted(model.batches[1:]) == [("en", 2), ("fr", 1)]


def test_a_batch_that_fails_and_what_is_too_long_are_heard_alone(
    stt: Any, model: type[Batching], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Batching, "broken", True)
    asked = [stt.transcribe.remote(utterance(n), "en", False) for n in (1, 2)]
    assert [response.result().text for response in asked] == ["1", "2"]
    assert sum(count for _, count in model.batches) == 2
    stt.transcribe.remote(LONG, "en", False).result()
    assert sum(count for _, count in model.batches) == 2
    assert model.alone == [100, 100, LONG.size]
