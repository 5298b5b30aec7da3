"""Claim: the embedded corpus is a pure function of the library's files, the Python version and the parameters; no text
occurs in two documents; what it says about itself is what it yields; a stripped Python is one line.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import platform
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tinydata.corpus import library
from tinydata.corpus.embedded import PARTS, EmbeddedCorpus
from tinydata.documents import SourceError

TOPICS = (
    'topics = {"with": "The \\"with\\" statement\\n'
    + "Use it for every resource. " * 8
    + '", "a": "'
    + "y" * 90
    + '"}\n'
)
LONG = "A sentence that says at some length what this definition does, and with enough characters to be prose."


@pytest.fixture(scope="module")
def corpus() -> EmbeddedCorpus:
    return EmbeddedCorpus(synthetic_documents=300)


@pytest.fixture
def small_library(tmp_path: Path) -> Path:
    """A library of MIN_FILES files that are alike but for a number."""
    root = tmp_path / "lib"
    (root / "pydoc_data").mkdir(parents=True)
    (root / "pydoc_data" / "topics.py").write_text(TOPICS)
    (root / "encodings").mkdir()
    for number in range(library.MIN_FILES):
        (root / "encodings" / f"module_{number:03}.py").write_text(f"value = {number}\n")
    return root


def code_of(root: Path) -> list[str]:
    return list(library.read(root).code)


def test_stream_and_manifest_agree(corpus: EmbeddedCorpus) -> None:
    documents = list(corpus.documents())
    manifest = corpus.manifest()
    assert manifest["python"] == platform.python_version()
    assert json.loads(json.dumps(manifest)) == manifest
    combined = hashlib.sha256()
    for part in PARTS:
        texts = [document.text for document in documents if document.source == part]
        digest = hashlib.sha256()
        for text in texts:
            digest.update(len(text.encode()).to_bytes(8, "little") + text.encode())
        said = manifest["parts"][part]
        assert said["documents"] == len(texts) > 0
        assert said["bytes"] == sum(len(text.encode()) for text in texts)
        assert said["sha256"] == digest.hexdigest()
        assert said["licence"] == ("PSF-2.0" if part in ("code", "prose") else "MIT")
        combined.update(f"{part} {digest.hexdigest()}\n".encode())
    assert manifest["sha256"] == combined.hexdigest()
    assert {document.source for document in documents if document.allow_special} == {"arithmetic"}


def test_no_text_twice_and_prose_is_clean(corpus: EmbeddedCorpus) -> None:
    documents = list(corpus.documents())
    assert max(Counter(document.text for document in documents).values()) == 1
    prose = [document.text for document in documents if document.source == "prose"]
    assert all(len(text) >= 80 and text == text.rstrip() for text in prose)
    moved = set(prose)
    for text in [document.text for document in documents if document.source == "code"][::6]:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                assert ast.get_docstring(node) not in moved


def test_the_mix_is_even_along_the_stream(corpus: EmbeddedCorpus) -> None:
    sources = [document.source for document in corpus.documents()]
    whole = Counter(sources)
    for start in range(0, len(sources), len(sources) // 8):
        stretch = Counter(sources[start : start + len(sources) // 8])
        for part in PARTS:
            expected = whole[part] * sum(stretch.values()) / len(sources)
            assert abs(stretch[part] - expected) <= 2


def test_code_is_the_library_without_the_docstrings_that_became_prose() -> None:
    """Held against the standard library's own parser: same tree, but for docstrings, in every file."""

    class WithoutDocstrings(ast.NodeTransformer):
        def __init__(self, moved: set[str]) -> None:
            self.moved = moved

        def visit(self, node: ast.AST) -> ast.AST:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node, clean=False)
                if text is not None and inspect.cleandoc(text).rstrip() in self.moved:
                    del node.body[0]
            return self.generic_visit(node)

    names = (
        "heapq.py",
        "dataclasses.py",
        "argparse.py",
        "json/decoder.py",
        "this.py",
        "typing.py",
        "turtle.py",
    )
    for name in names:
        source = (library.default_root() / name).read_text(encoding="utf-8")
        remaining, docstrings = library.separate(source, ast.parse(source))
        assert (len(docstrings) > 0) == (name != "this.py")
        expected = ast.dump(WithoutDocstrings(set(docstrings)).visit(ast.parse(source)))
        assert ast.dump(ast.parse(remaining)) == expected


def test_a_docstring_stays_where_it_cannot_be_moved() -> None:
    source = (
        f'class Empty:\n    """{LONG} one"""\n\n'
        f'def short(a):\n    """Short."""\n    return a\n\n'
        f'def shared(a):\n    """{LONG} two"""; return a\n\n'
        f'def noted(a):\n    """{LONG} three"""  # why\n    return a\n\n'
        f'if True:\n    async def moved(a):\n        """{LONG}\n\n        three\n          four ü\n        """\n'
        "\n        return a\n"
    )
    remaining, docstrings = library.separate(source, ast.parse(source))
    assert docstrings == [f"{LONG}\n\nthree\n  four ü"]
    assert remaining == source.split("    async")[0] + "    async def moved(a):\n        return a\n"


def test_tests_and_foreign_files_are_left_out(small_library: Path) -> None:
    before = code_of(small_library)
    for name in (
        "test/test_x.py",
        "encodings/tests/data.py",
        "site-packages/foreign.py",
        "pip/main.py",
        "sitecustomize.py",
        "_sysconfigdata__linux.py",
        "encodings/__pycache__/x.pyc",
    ):
        path = small_library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("foreign = 1\n")
    assert code_of(small_library) == before
    assert before == [f"value = {number}\n" for number in range(library.MIN_FILES)]


def test_unusable_library_files_are_counted(small_library: Path) -> None:
    (small_library / "ast.py").write_bytes(b"name = '\xff'\n")
    (small_library / "bdb.py").write_text("def (:\n")
    (small_library / "cgi.py").write_text("")
    (small_library / "cmd.py").write_text("value = 7\n")
    (small_library / "csv.py").write_text('"""Codec generated with gencodec.py."""\nvalue = 1000\n')
    (small_library / "dis.py").write_bytes(b"windows = 1\r\n")
    corpus = EmbeddedCorpus(parts=["prose", "code"], library_root=small_library)
    texts = [document.text for document in corpus.documents() if document.source == "code"]
    assert corpus.skipped == {
        "duplicate": 1,
        "empty": 1,
        "generated table": 1,
        "not python": 1,
        "not utf-8": 1,
    }
    assert "windows = 1\n" in texts
    prose = [document.text for document in corpus.documents() if document.source == "prose"]
    assert prose[0] == "y" * 90
    assert prose[1].startswith('The "with" statement\nUse it')


def test_order_comes_from_names_not_from_the_file_system(small_library: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in sorted((path for path in small_library.rglob("*") if path.is_file()), reverse=True):
        target = copy / path.relative_to(small_library)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    first, second = (EmbeddedCorpus(synthetic_documents=5, library_root=root) for root in (small_library, copy))
    assert list(first.documents()) == list(second.documents())
    assert first.description() == second.description()
    assert first.manifest() == second.manifest()


def test_description_follows_what_the_documents_depend_on(small_library: Path) -> None:
    def description(**changes: object) -> dict[str, object]:
        arguments = {"synthetic_documents": 5, "seed": 0, "library_root": small_library, **changes}
        return EmbeddedCorpus(**arguments).description()

    base = description()
    assert json.loads(json.dumps(base)) == base == description()
    variants = [
        description(seed=1),
        description(synthetic_documents=6),
        description(parts=("code", "stories")),
    ]
    (small_library / "ast.py").write_text("changed = 1\n")
    variants.append(description())
    assert all(variant != base for variant in variants)
    assert "python" not in json.dumps(description(parts=("stories",)))


@pytest.mark.parametrize("damage", ["zip", "few", "topics", "names"])
def test_a_stripped_python_is_one_line(small_library: Path, damage: str) -> None:
    topics = small_library / "pydoc_data" / "topics.py"
    if damage == "zip":
        shutil.rmtree(small_library)
        small_library.write_bytes(b"PK")
    elif damage == "few":
        (small_library / "encodings" / "module_000.py").unlink()
        (small_library / "encodings" / "module_001.py").unlink()
    elif damage == "topics":
        topics.rename(small_library / "pydoc_data" / "other.py")
    else:
        topics.write_text("other = {}\n")
    with pytest.raises(SourceError) as error:
        list(EmbeddedCorpus(library_root=small_library).documents())
    message = str(error.value)
    assert message.startswith("embedded corpus: ")
    assert "run a full CPython installation" in message
    assert "\n" not in message


def test_synthetic_parts_need_no_library(tmp_path: Path) -> None:
    corpus = EmbeddedCorpus(("arithmetic", "stories"), synthetic_documents=20, library_root=tmp_path / "none")
    assert [document.source for document in corpus.documents()] == ["stories", "arithmetic"] * 20
    assert list(corpus.manifest()["parts"]) == ["stories", "arithmetic"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"parts": ("code", "poems")}, "poems"),
        ({"parts": ()}, "one or more"),
        ({"parts": ("code", "code")}, "once"),
        ({"synthetic_documents": 0}, "leave the parts out"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(SourceError, match=word):
        EmbeddedCorpus(**arguments)


def test_another_process_with_another_hash_seed_and_locale_sees_the_same(small_library: Path) -> None:
    script = (
        "import pathlib, sys; from tinydata.corpus.embedded import EmbeddedCorpus;"
        "corpus = EmbeddedCorpus(synthetic_documents=300, library_root=pathlib.Path(sys.argv[1]));"
        "print(corpus.manifest()['sha256'])"
    )
    environment = {
        "PYTHONHASHSEED": "77",
        "LC_ALL": "C",
        "TZ": "Asia/Tokyo",
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(small_library)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    here = EmbeddedCorpus(synthetic_documents=300, library_root=small_library)
    assert done.stdout.strip() == here.manifest()["sha256"]
