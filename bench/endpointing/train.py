"""Fits `WEIGHTS` of `antiphon.core.endpointing` on the pauses of human speech.

    antiphon bench endpoint FOLDER --offline --signs signs.jsonl     # hears the recordings, takes minutes
    python bench/endpointing/train.py signs.jsonl [--groups groups.json]

The weights of detector and words are looked for on a grid: those whose curve is lowest at 5, 10 and 20 % of turns cut
off. Five-fold: each fold is judged with the weights that the other four chose. `groups.json` maps the stem of a file's
name to its speaker, so that nobody is in two folds; without it every recording is a speaker of its own. Printed: the
weights of each fold, the held-out curve, and the weights of all recordings.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from antiphon.client.bench.endpoint import Outcome, at_levels, decide, ours
from antiphon.client.bench.pauses import Heard, load
from antiphon.core.endpointing import WEIGHTS, Weights
from antiphon.core.policy import Policy

DETECTOR = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
WORDS = (0.0, 0.2, 0.3, 0.4, 0.55, 0.7)
KNOBS = tuple(step / 14 for step in range(22))
"""Of `patience`, and beyond it: the scale is fitted afterwards."""
FOLDS = 5
NEVER_MS = 2_500.0

Outcomes = dict[tuple[Weights, float], list[Outcome | None]]


def folds_of(heard: Sequence[Heard], groups: dict[str, object]) -> list[int]:
    names = [str(groups.get(Path(one.file).stem, one.file)) for one in heard]
    speakers = sorted(set(names))
    random.Random(7).shuffle(speakers)
    fold = {speaker: number % FOLDS for number, speaker in enumerate(speakers)}
    return [fold[name] for name in names]


def point(knob: float, outcomes: Sequence[Outcome | None]) -> dict[str, float]:
    found = [one for one in outcomes if one is not None]
    waits = [one.latency_ms for one in found if not one.cut_off]
    cut = 1 - len(waits) / len(found)
    return {
        "knob": knob,
        "cut_off_share": cut,
        "mean_ms": sum(waits) / len(waits) if waits else NEVER_MS,
    }


def loss(outcomes: Outcomes, weights: Weights, chosen: Sequence[int]) -> float:
    points = [point(knob, [outcomes[weights, knob][at] for at in chosen]) for knob in KNOBS]
    levels = at_levels(points)
    return sum(levels[name] or NEVER_MS for name in ("5%", "10%", "20%"))


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("signs", type=Path)
    arguments.add_argument("--groups", type=Path)
    given = arguments.parse_args()
    heard = load(given.signs)
    groups = json.loads(given.groups.read_text()) if given.groups else {}
    folds = folds_of(heard, groups)
    grid = [replace(WEIGHTS, detector=d, words=w) for d, w in itertools.product(DETECTOR, WORDS)]
    outcomes: Outcomes = {}
    for weights, knob in itertools.product(grid, KNOBS):
        rule = ours(replace(Policy(), patience=knob), weights)
        outcomes[weights, knob] = [decide(one, rule) for one in heard]
    held_out: dict[float, list[Outcome | None]] = {knob: [] for knob in KNOBS}
    for fold in range(FOLDS):
        train = [at for at, its in enumerate(folds) if its != fold]
        best = min(grid, key=lambda weights: loss(outcomes, weights, train))
        print(f"fold {fold}: detector {best.detector}, words {best.words}")
        for knob in KNOBS:
            held_out[knob] += [outcomes[best, knob][at] for at, f in enumerate(folds) if f == fold]
    points = [point(knob, found) for knob, found in held_out.items()]
    print("held out:", at_levels(points))
    for at in points:
        print({name: round(value, 3) for name, value in at.items()})
    everyone = range(len(heard))
    ranked = sorted(grid, key=lambda weights: loss(outcomes, weights, everyone))
    for weights in (ranked[0], *(w for w in grid if w.detector == 0 or w.words == 0)):
        points = [point(knob, outcomes[weights, knob]) for knob in KNOBS]
        print(f"all: detector {weights.detector}, words {weights.words}:", at_levels(points))


if __name__ == "__main__":
    main()
