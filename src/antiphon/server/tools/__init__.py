"""Functions that the owner configured: Python functions, web addresses, MCP servers. Knows no call."""

from antiphon.server.tools.sources import ToolSources

__all__ = ["ToolSources"]
