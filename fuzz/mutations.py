"""What goes wrong with a message: members of another type, too deep, too large. Nearly always, what is left is JSON."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

_NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, 0.1, float("nan"), float("inf"))
_TEXTS = (
    "",
    "\ud800",
    "\udfff\ud800",
    "\0",
    "I" * 5_000,
    "a" * 100_000,
    "%s%n{}[]",
    "../../etc/passwd",
    "=",
    "AAA",
    "A===",
    "\u202e\u0301" * 50,
    "<|im_end|>",
)
_OTHERS = (None, True, False, [], {}, [[]], [None], {"": ""}, {"type": None})


def value(dice: random.Random) -> Any:
    """Anything."""
    kind: tuple[Any, ...] = dice.choice((_NUMBERS, _TEXTS, _OTHERS))
    return copy.deepcopy(dice.choice(kind))


def mutated(message: Any, dice: random.Random) -> str:
    """A message with one to three things wrong with it, as text."""
    changed = copy.deepcopy(message)
    for _ in range(dice.randint(1, 3)):
        changed = dice.choice(_MUTATIONS)(changed, dice)
    text = json.dumps(changed)
    return dice.choice(_SPOILED)(text, dice) if dice.random() < 0.1 else text


def shuffled(messages: list[Any], dice: random.Random) -> list[Any]:
    """In another order, some of them twice and some not at all."""
    kept = [m for m in messages for _ in range(dice.choice((0, 1, 1, 1, 2)))]
    dice.shuffle(kept)
    return kept


def _places(message: Any) -> list[tuple[Any, Any]]:
    """Every member: its container, and its name or index there."""
    found: list[tuple[Any, Any]] = []
    inside = list(message.items()) if isinstance(message, dict) else []
    inside += list(enumerate(message)) if isinstance(message, list) else []
    for name, member in inside:
        found.append((message, name))
        found += _places(member)
    return found


def _swap(message: Any, dice: random.Random) -> Any:
    places = _places(message)
    if not places:
        return value(dice)
    container, name = dice.choice(places)
    container[name] = value(dice)
    return message


def _leave_out(message: Any, dice: random.Random) -> Any:
    places = _places(message)
    if places:
        container, name = dice.choice(places)
        del container[name]
    return message


def _add(message: Any, dice: random.Random) -> Any:
    objects = [c for c, _ in _places(message) if isinstance(c, dict)]
    if objects:
        chosen = dice.choice(objects)
        chosen[dice.choice((*chosen, "x", "type", "$ref", "__proto__"))] = value(dice)
    return message


def _deepen(message: Any, dice: random.Random) -> Any:
    places = _places(message)
    if not places:
        return message
    container, name = dice.choice(places)
    for _ in range(dice.choice((2, 30, 300))):
        container[name] = [container[name]] if dice.random() < 0.5 else {"a": container[name]}
    return message


def _copy_over(message: Any, dice: random.Random) -> Any:
    """A member of it in the place of another one."""
    places = _places(message)
    if len(places) > 1:
        (source, name), (target, place) = dice.sample(places, 2)
        target[place] = copy.deepcopy(source[name])
    return message


def _many(message: Any, dice: random.Random) -> Any:
    lists = [c[n] for c, n in _places(message) if isinstance(c[n], list) and c[n]]
    if lists:
        chosen = dice.choice(lists)
        chosen.extend(copy.deepcopy(chosen[0]) for _ in range(dice.choice((3, 200))))
    return message


def _other_root(message: Any, dice: random.Random) -> Any:
    return value(dice) if dice.random() < 0.1 else message


_MUTATIONS: tuple[Callable[[Any, random.Random], Any], ...] = (
    _swap,
    _swap,
    _swap,
    _leave_out,
    _add,
    _deepen,
    _copy_over,
    _many,
    _other_root,
)
_SPOILED: tuple[Callable[[str, random.Random], str], ...] = (
    lambda text, dice: text[: dice.randrange(len(text) + 1)],
    lambda text, dice: "[" * 60_000,
    lambda text, dice: '{"a":' * 20_000 + "1" + "}" * 20_000,
    lambda text, dice: text + text,
    lambda text, dice: "\ufeff" + text,
    lambda text, dice: "1" * 5_000,
)
