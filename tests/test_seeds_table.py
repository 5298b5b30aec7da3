"""docs/seeds.md claims nothing that is not there: names, recipes and options of rows marked **here** exist."""

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = [line for line in (ROOT / "docs" / "seeds.md").read_text("utf-8").splitlines() if "**here**" in line]


def here() -> str:
    """The middle column of the rows that exist, up to what is still missing."""
    return "\n".join(row.split("|")[2].partition("not yet")[0] for row in ROWS if row.startswith("|"))


def test_public_names_exist() -> None:
    named = set(re.findall(r"`(tiny\w+(?:\.\w+)+)`", here()))
    assert len(named) > 3
    for name in named:
        package, *path = name.split(".")
        found = importlib.import_module(package)
        for part in path:
            if not hasattr(found, part):  # a module that nothing has imported yet
                importlib.import_module(f"{found.__name__}.{part}")
            found = getattr(found, part)


def test_recipes_exist() -> None:
    names = {name.removeprefix("brandon") for name in re.findall(r"`((?:brandon)?-\d+[km][\w-]*)`", here())}
    files = {path.stem.removeprefix("brandon") for path in (ROOT / "apps" / "recipes").glob("brandon-*.yaml")}
    assert names == files


def test_apps_exist() -> None:
    for app in set(re.findall(r"`apps/(\w+)`", here())):
        assert (ROOT / "apps" / app / "__main__.py").is_file(), app


def test_every_row_has_three_columns() -> None:
    text = (ROOT / "docs" / "seeds.md").read_text("utf-8")
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {4}
