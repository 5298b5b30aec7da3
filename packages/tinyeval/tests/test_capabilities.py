"""The table of capabilities: its data, verdicts worked by hand, and cells that say that nothing was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinyeval import Record, Result, Score, TaskError, capabilities, tasks
from tinyeval.capabilities import Measured
from tinyeval.task import with_dataset

TABLE = capabilities.load()


def result(right: int, n: int = 500) -> Result:
    records = tuple(Record(str(i), {"exact": float(i < right)}) for i in range(n))
    score = Score(right / n, 0.01)
    return Result("t", 1, "", "m", "exact", True, n, 0, scores={"exact": score}, records=records)


def row(capability: str, condition: str = "standard") -> capabilities.Row:
    return next(one for one in TABLE.rows if (one.capability, one.condition) == (capability, condition))


def test_every_cell_of_the_seeds_table_is_there() -> None:
    assert list(TABLE.scales) == ["10M", "30M", "110M"]
    assert len({one.capability for one in TABLE.rows}) == 9
    assert {one.condition for one in TABLE.rows} == {"standard", "scratchpad", "tools", "recursion"}
    said = [(one, scale) for one in TABLE.rows for scale in one.says]
    assert len(said) == 9 * 3 + 3, "at 10M three cells have two halves: with scratchpad, tools, recursion and without"
    for capability in {one.capability for one in TABLE.rows}:
        for scale in TABLE.scales:
            assert any(scale in one.says for one in TABLE.rows if one.capability == capability), (capability, scale)
    arithmetic = {one.condition: one.says["10M"] for one in TABLE.rows if one.capability == "basic arithmetic"}
    assert arithmetic == {"standard": "cannot", "tools": "can"}


def test_every_test_exists_and_has_at_least_500_items() -> None:
    for one in TABLE.rows:
        task = with_dataset(tasks.load(one.task), **one.dataset)
        assert task.dataset["items"] >= TABLE.items == 500
        assert task.higher_is_better
        assert (task.chance or 0.0) < one.some < one.passes


@pytest.mark.parametrize(
    ("parameters", "scale"),
    [
        (919_000, "0.92M"),
        (4_999_999, "5M"),
        (10_705_152, "10M"),
        (29_993_856, "30M"),
        (110_925_282, "110M"),
        (10**9, "1B"),
    ],
)
def test_the_column_of_a_model(parameters: int, scale: str) -> None:
    assert TABLE.scale(parameters) == scale


@pytest.mark.parametrize(
    ("right", "n", "outcome", "can", "cannot", "limited"),
    [
        # Wilson's interval of 300/500 is 0.556 to 0.642, of 250/500 0.456 to 0.544, of 100/500 0.167 to 0.237
        (300, 500, "pass", "holds", "does not hold", "holds"),
        (250, 500, "open", "open", "does not hold", "holds"),
        (100, 500, "fail", "does not hold", "does not hold", "holds"),
        (50, 500, "fail", "does not hold", "open", "open"),  # 0.077 to 0.129
        (10, 500, "fail", "does not hold", "holds", "does not hold"),  # 0.011 to 0.036
        (300, 499, "open", "open", "open", "open"),  # too few items
    ],
)
def test_verdicts(right: int, n: int, outcome: str, can: str, cannot: str, limited: str) -> None:
    found = result(right, n)
    arithmetic, abstract = row("basic arithmetic"), row("abstract reasoning")
    assert (arithmetic.some, arithmetic.passes) == (abstract.some, abstract.passes) == (0.1, 0.5)
    assert TABLE.outcome(arithmetic, found) == outcome
    assert TABLE.holds(arithmetic, "30M", found) == can
    assert TABLE.holds(arithmetic, "10M", found) == cannot
    assert TABLE.holds(abstract, "30M", found) == limited
    assert TABLE.holds(arithmetic, "0.9M", found) is None


def test_what_was_not_measured_says_so() -> None:
    empty = capabilities.to_rows(TABLE, {})
    assert len(empty) == len(TABLE.rows) * 3
    assert all(cell["outcome"] == "not measured" and "mean" not in cell for cell in empty)
    found = {"0.92M": [(row("grammar"), Measured("demo", result(300)))]}
    cells = capabilities.to_rows(TABLE, found)
    assert len(cells) == len(TABLE.rows) * 4
    measured = [cell for cell in cells if cell["outcome"] != "not measured"]
    assert [(cell["capability"], cell["scale"], cell["n"], cell["mean"]) for cell in measured] == [
        ("grammar", "0.92M", 500, 0.6)
    ]
    lines = capabilities.to_markdown(TABLE, found).splitlines()
    assert lines[0].startswith("| capability | condition | test, passed from | 0.92M | 10M | 30M | 110M |")
    assert len(lines) == 2 + len(TABLE.rows)
    assert "**fail** 0.600 +- 0.010 (n=500, `demo`: t)" in next(line for line in lines if line.startswith("| grammar"))
    assert "said: can; not measured" in lines[2]


def test_a_file_that_is_no_table_is_one_line(tmp_path: Path) -> None:
    text = (Path(capabilities.__file__).with_suffix(".yaml")).read_text()
    for old, new, words in (
        ("some: 0.6, pass: 0.75", "some: 0.9, pass: 0.75", "the lower first"),
        ("10M: marginal", "10M: perhaps", "words and scales that it has"),
        ("condition: tools", "conditoin: tools", "unknown key 'conditoin'"),
        ("items: 500 #", "itmes: 500 #", "not a table of capabilities: 'items'"),
    ):
        file = tmp_path / "table.yaml"
        assert old in text
        file.write_text(text.replace(old, new, 1))
        with pytest.raises(TaskError, match=words) as refused:
            capabilities.read(file)
        assert "\n" not in str(refused.value)
