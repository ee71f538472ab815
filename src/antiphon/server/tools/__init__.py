"""Functions that the owner configured: Python functions, web addresses, MCP servers."""

from antiphon.server.tools.tool_sources import ToolSources

__all__ = ["ToolSources"]
