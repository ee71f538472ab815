"""Routes, admission, health: HTTP and websockets bound to sessions. Decides nothing about a conversation."""
