"""tinyreason: tools, verifiers and test-time compute for models that reason by generating text. No torch."""

from tinyreason.answers import Answers, Checker, final_answer
from tinyreason.calculator import Calculator, CalculatorError
from tinyreason.completion import Call, Completion, Generator, Scorer, Spent
from tinyreason.endpoint import Endpoint, EndpointError
from tinyreason.sandbox import CodeResult, CodeRunner, CodeSandbox, SandboxUnavailable
from tinyreason.search import Hit, SearchError, SearchIndex
from tinyreason.test_time import Majority, best_of_n, majority_vote, pass_at_k, refine, think
from tinyreason.tools import Tool, Toolbox, ToolError, ToolGenerator, ToolSession, tool
from tinyreason.verifiers import AllOf, AnswerVerifier, ExecutionVerifier, PlausibleVerifier

__version__ = "0.1.0"

__all__ = [
    "AllOf",
    "AnswerVerifier",
    "Answers",
    "Calculator",
    "CalculatorError",
    "Call",
    "Checker",
    "CodeResult",
    "CodeRunner",
    "CodeSandbox",
    "Completion",
    "Endpoint",
    "EndpointError",
    "ExecutionVerifier",
    "Generator",
    "Hit",
    "Majority",
    "PlausibleVerifier",
    "SandboxUnavailable",
    "Scorer",
    "SearchError",
    "SearchIndex",
    "Spent",
    "Tool",
    "ToolError",
    "ToolGenerator",
    "ToolSession",
    "Toolbox",
    "best_of_n",
    "final_answer",
    "majority_vote",
    "pass_at_k",
    "refine",
    "think",
    "tool",
]
