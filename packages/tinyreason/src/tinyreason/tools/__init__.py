"""Tools that a model calls in the middle of its answer."""

from tinyreason.tools.session import Tags, ToolSession
from tinyreason.tools.standard import calculator_tool, code_tool, search_tool
from tinyreason.tools.text import ToolGenerator, escaped
from tinyreason.tools.tool import Tool, ToolError, tool
from tinyreason.tools.toolbox import Toolbox

__all__ = [
    "Tags",
    "Tool",
    "ToolError",
    "ToolGenerator",
    "ToolSession",
    "Toolbox",
    "calculator_tool",
    "code_tool",
    "escaped",
    "search_tool",
    "tool",
]
