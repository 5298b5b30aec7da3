"""The tools of the seeds: `<calc>` exact arithmetic, `<code>` Python in a sandbox, `<search>` a folder of texts."""

from __future__ import annotations

from tinyreason.calculator import Calculator, CalculatorError
from tinyreason.sandbox import CodeRunner
from tinyreason.search import SearchIndex
from tinyreason.tools.tool import Tool, ToolError


def calculator_tool(name: str = "calc") -> Tool:
    """`<calc>347*892</calc>` -> `309524`."""
    calculate = Calculator()

    def run(expression: str) -> str:
        try:
            return calculate(expression)
        except CalculatorError as reason:
            raise ToolError(str(reason)) from None

    return Tool(name, run, "exact arithmetic")


def code_tool(runner: CodeRunner, name: str = "code", seconds: float = 2.0, memory: int = 2**26) -> Tool:
    """`<code>print(347*892)</code>` -> what the program printed. seconds, memory (bytes): limits of a run."""

    def run(source: str) -> str:
        result = runner.run(source, seconds, memory)
        if result.error is not None:
            raise ToolError(result.error)
        return result.output

    return Tool(name, run, "a Python program; what it prints")


def search_tool(index: SearchIndex, name: str = "search", results: int = 3) -> Tool:
    """`<search>capital of France</search>` -> the best `results` passages, each with its source."""

    def run(query: str) -> str:
        hits = index.search(query, results)
        if not hits:
            raise ToolError("nothing found")
        return "\n".join(f"[{hit.source}] {hit.text}" for hit in hits)

    return Tool(name, run, "passages of local texts")
