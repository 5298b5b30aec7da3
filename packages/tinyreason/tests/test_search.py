"""Search: the passages of a folder, and nothing outside of it."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("bm25s")

from tinyreason import SearchError, SearchIndex
from tinyreason.tools import search_tool

TEXTS = {
    "rome.txt": "Rome is the capital of Italy. It has seven hills.",
    "paris.md": "Paris is the capital of France. The Seine flows through it.",
    "deep/tea.txt": "Tea is made of leaves and hot water.",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "texts"
    for name, text in TEXTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_the_best_passage_with_its_source(folder: Path) -> None:
    index = SearchIndex.of_folder(folder)
    assert [hit.source for hit in index.search("capital of France")] == ["paris.md", "rome.txt", "deep/tea.txt"]
    assert index.search("hot TEA")[0].source == str(Path("deep/tea.txt"))
    assert index.search("xyzzy") == []
    assert index.search("") == []
    assert search_tool(index, results=1).run("seven hills") == f"[rome.txt] {TEXTS['rome.txt']}"


def test_scores_are_bm25(folder: Path) -> None:
    """Lucene's form, k1 1.5 and b .75, by a loop."""
    documents = [("a", "cat sat on the mat"), ("b", "cat cat dog"), ("c", "the dog ran far away from the house")]
    index = SearchIndex(documents)
    words = [text.split() for _, text in documents]
    mean = sum(map(len, words)) / 3

    def score(query: str, document: list[str]) -> float:
        total = 0.0
        for word in query.split():
            having = sum(word in other for other in words)
            tf = Counter(document)[word]
            inverse = math.log(1 + (3 - having + 0.5) / (having + 0.5))
            total += inverse * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean))
        return total

    for query in ("cat", "the dog", "cat house"):
        for hit in index.search(query):
            expected = score(query, words["abc".index(hit.source)])
            assert hit.score == pytest.approx(expected, rel=1e-5)


def test_long_texts_are_cut_into_passages_that_overlap() -> None:
    text = " ".join(f"word{number}" for number in range(500))
    index = SearchIndex([("long", text)], words=50)
    assert all(len(hit.text.split()) <= 50 for number in range(0, 500, 37) for hit in index.search(f"word{number}"))
    for number in range(495):
        first = index.search(f"word{number} word{number + 5}", 1)[0].text.split()
        assert {f"word{number}", f"word{number + 5}"} <= set(first)


def test_links_binaries_and_large_files_are_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("the secret password is swordfish")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "huge.txt").write_text("x " * 2**22)
    (folder / "image.png").write_bytes(b"png")
    index = SearchIndex.of_folder(folder)
    assert index.search("swordfish") == []
    assert index.skipped == {"link": 1, "not readable as UTF-8": 1, "too large": 1}
    assert len(index) == 3


def test_nothing_to_search_in(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no such folder"):
        SearchIndex.of_folder(tmp_path / "none")
    with pytest.raises(SearchError, match="there is no text"):
        SearchIndex.of_folder(tmp_path)
