"""The command `antiphon`. Each command has a module of its own, imported when it is called."""

from antiphon.cli.main import main

__all__ = ["main"]
