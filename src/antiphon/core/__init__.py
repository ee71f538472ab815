"""The conversation engine: pure state machines that decide, and never touch a clock, a socket or a sample.

Start with `conversation.py`; `events.py` and `actions.py` are its whole vocabulary, `floor.py` its states.
"""
