"""How events leave the parts of the codec, and the two that always go together."""

from __future__ import annotations

from typing import Any, Protocol

from antiphon.wire.realtime.items import Items


class Emit(Protocol):
    def __call__(self, kind: str, /, *, reply: str = "", **fields: Any) -> None:
        """Send an event. `reply`: it is audio of this response, and may be dropped before it leaves."""
        ...


def show_item(items: Items, emit: Emit, item: dict[str, Any], after: str | None = None) -> None:
    """An item that is complete as it appears. `after`: as in `Items.add`."""
    before = items.add(item, after)
    emit("conversation.item.added", previous_item_id=before, item=item)
    emit("conversation.item.done", previous_item_id=before, item=item)
