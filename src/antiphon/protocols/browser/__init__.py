"""The protocol of the page, on `/ws/conversation`. See docs/protocols/conversation.md."""
