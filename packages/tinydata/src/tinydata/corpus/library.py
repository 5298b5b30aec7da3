"""Code and prose from the standard library of the Python that runs this: no network, no foreign text shipped.

Code is the library's .py files; prose is their docstrings and the language reference's topics (`pydoc_data`). A
docstring that becomes prose leaves the code, so that no sentence occurs in two documents: otherwise a validation
docstring would sit word for word in a training file. Files are read and parsed, never imported.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tinydata.documents import SourceError

# Raise it with every change of the rules below that changes a byte of what they yield.
VERSION = 1

MIN_PROSE_CHARACTERS = 80
# A full CPython has about 650 of them; an installation with fewer is a stripped one.
MIN_FILES = 200

_TOPICS = "pydoc_data/topics.py"
_TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
# The codec tables of `encodings`, written by a script: a tenth of the library's bytes, and nothing but numbers.
_GENERATED_MARK = "gencodec.py"
_REMEDY = "run a full CPython installation, or give local files as the source"


@dataclass(frozen=True, slots=True)
class LibraryText:
    """Documents of the two parts in their fixed order, and counts of the files left out by reason."""

    code: tuple[str, ...]
    prose: tuple[str, ...]
    skipped: dict[str, int]


@dataclass(slots=True)
class _Collector:
    """Texts in order of arrival, each once."""

    texts: dict[str, None] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def add(self, text: str) -> None:
        if not text or text.isspace():
            self.skip("empty")
        elif text in self.texts:
            self.skip("duplicate")
        else:
            self.texts[text] = None

    def skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1


def default_root() -> Path:
    """The folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def files(root: Path) -> list[tuple[str, bytes]]:
    """(path relative to `root` with `/`, content) of the library's own sources, in the order of those paths.

    Tests, site-packages, what others put beside the library, and build-machine modules are not among them. Raises
    SourceError, in one line with the remedy, when `root` is an archive or holds too little.
    """
    if not root.is_dir():
        raise SourceError(f"embedded corpus: the standard library {root} is not a folder of .py files: {_REMEDY}")
    names = sorted(_paths(root))
    if len(names) < MIN_FILES or _TOPICS not in names:
        missing = f"has no {_TOPICS}" if len(names) >= MIN_FILES else f"has only {len(names)} .py files"
        raise SourceError(f"embedded corpus: the standard library {root} {missing}: {_REMEDY}")
    try:
        return [(name, (root / name).read_bytes()) for name in names]
    except OSError as error:
        raise SourceError(f"embedded corpus: cannot read {error.filename} ({error.strerror}): {_REMEDY}") from error


def fingerprint(root: Path) -> str:
    """sha256 hex of the names and contents of `files(root)`: what code and prose are a function of."""
    digest = hashlib.sha256()
    for name, content in files(root):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def read(root: Path) -> LibraryText:
    """All code and prose of the standard library in folder `root`. Raises SourceError as `files` does."""
    code, prose, topics = _Collector(), _Collector(), []
    for name, content in files(root):
        try:
            source = content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            code.skip("not utf-8")
            continue
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            code.skip("not python")
            continue
        if name == _TOPICS:
            topics = _topics(tree)
        elif _GENERATED_MARK in source[:400]:
            code.skip("generated table")
        else:
            remaining, docstrings = separate(source, tree)
            code.add(remaining)
            for docstring in docstrings:
                prose.add(docstring)
    for topic in topics:
        prose.add(topic)
    skipped = {
        reason: code.skipped.get(reason, 0) + prose.skipped.get(reason, 0) for reason in code.skipped | prose.skipped
    }
    return LibraryText(tuple(code.texts), tuple(prose.texts), dict(sorted(skipped.items())))


def separate(source: str, tree: ast.Module) -> tuple[str, list[str]]:
    """`source` without the docstrings that are prose, and those docstrings, dedented, in source order.

    A docstring stays in the code when it is short, is the whole body (which would not be Python without it), or
    shares a line with something else.
    """
    lines = source.split("\n")
    found: list[tuple[int, int, str]] = []
    for node in _statements(tree):
        if (
            not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            or len(node.body) < 2
        ):
            continue
        match node.body[0]:
            case (
                ast.Expr(
                    value=ast.Constant(value=str(text)), end_lineno=int(last), end_col_offset=int(end)
                ) as docstring
            ):
                prose = inspect.cleandoc(text).rstrip()
                alone = not lines[docstring.lineno - 1].encode()[: docstring.col_offset].strip()
                alone = alone and not lines[last - 1].encode()[end:].strip()
                if alone and len(prose) >= MIN_PROSE_CHARACTERS and _is_utf8(prose):
                    found.append((docstring.lineno - 1, last, prose))
    found.sort()
    kept, position = [], 0
    for first, last, _ in found:
        kept += lines[position:first]
        position = last
        while position < len(lines) - 1 and not lines[position].strip():
            position += 1  # the blank lines that set the docstring off from the body
    kept += lines[position:]
    return "\n".join(kept), [prose for _, _, prose in found]


def _paths(root: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(root):
        relative = Path(parent).relative_to(root)
        if relative.parts:
            folders[:] = [name for name in folders if name not in _TEST_FOLDERS]
        else:
            folders[:] = [name for name in folders if name in sys.stdlib_module_names]
            names = [name for name in names if name.removesuffix(".py") in sys.stdlib_module_names]
        yield from ((relative / name).as_posix() for name in names if name.endswith(".py"))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """The node and every statement under it. Expressions hold no docstrings and are most of a tree: not entered."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _statements(child)


def _topics(tree: ast.Module) -> list[str]:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="topics")], value=value):
                topics = ast.literal_eval(value)
                return [inspect.cleandoc(topics[name]).rstrip() for name in sorted(topics)]
    raise SourceError(f"embedded corpus: {_TOPICS} of this Python assigns no `topics`: {_REMEDY}")


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
