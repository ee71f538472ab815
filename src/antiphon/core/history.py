"""What the language model is told of the call so far: items in order, cut to what was heard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A function call that the language model asks for."""

    call_id: str
    name: str
    arguments: str
    """JSON object as text."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the history. `text` of an assistant item is never more than what was heard."""

    id: str
    role: str
    """`user`, `assistant`, `system`, `tool_call` or `tool_result`."""
    text: str = ""
    tool: ToolRequest | None = None
    """Of a `tool_call` item."""
    call_id: str = ""
    """Of a `tool_result` item."""
    complete: bool = True
    """False: the user did not hear all of it, or it is still being said."""
    aside: bool = False
    """The user heard it, but it answers nothing: the language model is not told, lest it takes it up."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the protocol wants back verbatim. The core never looks inside."""


class HistoryView(Protocol):
    """What others may read of the history."""

    def __iter__(self) -> Iterator[Item]: ...
    def __len__(self) -> int: ...
    def snapshot(self) -> tuple[Item, ...]: ...
    def find(self, item_id: str) -> Item | None: ...
    def last(self, role: str) -> Item | None: ...


class History:
    """Items in order. Append-only in normal use, so that a prompt cache stays valid."""

    def __init__(self) -> None:
        self._items: list[Item] = []

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def snapshot(self) -> tuple[Item, ...]:
        """What a reply is generated from: everything that has any content, asides apart, and every tool's result."""
        return tuple(
            i
            for i in self._items
            if not i.aside and (i.text or i.tool is not None or i.role == "tool_result")
        )

    def find(self, item_id: str) -> Item | None:
        return next((i for i in self._items if i.id == item_id), None)

    def last(self, role: str) -> Item | None:
        """The latest item of this role that says anything, asides apart."""
        return next(
            (i for i in reversed(self._items) if i.role == role and i.text and not i.aside), None
        )

    def before(self, item_id: str) -> str:
        """What `add` needs as `after` to insert before this item. Raises KeyError when unknown."""
        index = self._index(item_id)
        return self._items[index - 1].id if index else "root"

    def add(self, item: Item, after: str | None = None) -> str | None:
        """Insert after the item `after` (`"root"`: at the start; None: at the end) -> id of the one before it.

        Raises KeyError when `after` is unknown and ValueError when the id is taken.
        """
        if self.find(item.id) is not None:
            raise ValueError(item.id)
        index = len(self._items)
        if after == "root":
            index = 0
        elif after is not None:
            index = self._index(after) + 1
        self._items.insert(index, item)
        return self._items[index - 1].id if index else None

    def remove(self, item_id: str) -> Item:
        """Raises KeyError when unknown."""
        return self._items.pop(self._index(item_id))

    def change(self, item_id: str, text: str, *, complete: bool) -> Item:
        """Replace an item's text. Raises KeyError when unknown."""
        index = self._index(item_id)
        self._items[index] = replace(self._items[index], text=text, complete=complete)
        return self._items[index]

    def _index(self, item_id: str) -> int:
        for index, item in enumerate(self._items):
            if item.id == item_id:
                return index
        raise KeyError(item_id)
