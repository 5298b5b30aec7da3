"""Where prepared data and its report are: a folder that holds one preparation and says of which data it is.

With `--out` the folder is marked before anything is written into it, so that a preparation that was killed goes on there, and
other data are refused instead of mixed with what is there. Without it everything is where training looks for it: `data/KEY`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.common import compare, data, files
from apps.common.data_config import TextData
from apps.common.errors import BadRequest, RunError
from apps.common.recipe import Recipe
from tinycore.config import dump

MARK = "prepared.json"
DEFAULT = Path("data")


@dataclass
class Place:
    """out: the folder that was asked for; None: that of the data's own."""

    out: Path | None
    cache: Path
    recipe: Recipe

    @classmethod
    @contextlib.contextmanager
    def claim(cls, out: Path | None, recipe: Recipe) -> Generator[Place]:
        """The place of the recipe's data. Raises BadRequest, before anything is written, where other data are in it; where
        nothing comes of the preparation a folder made for it goes again."""
        cache = Path(recipe.data.cache) if isinstance(recipe.data, TextData) else DEFAULT
        place = cls(out, cache, recipe)
        made = False
        if out is not None:
            made = place._mark(out, data.key_of(recipe.data) if isinstance(recipe.data, TextData) else None)
        try:
            yield place
        except Exception:
            if made and out is not None and not any(out.glob(f"*/{data.MANIFEST}")):
                shutil.rmtree(out, ignore_errors=True)
            raise

    def home(self, key: str) -> Path:
        """The folder that the report is written into."""
        folder = self.out if self.out is not None else self.cache / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _mark(self, out: Path, key: str | None) -> bool:
        """Say in `out` whose it is; whether the folder was made for it."""
        said = {"key": key, "data": self._described()}
        if (out / MARK).is_file():
            self._compare(out, said)
            return False
        # who was killed while it wrote the mark has left a part of it
        there = [entry.name for entry in out.iterdir() if entry.name != files.TEMPORARY + MARK] if out.is_dir() else []
        if out.exists() and (there or not out.is_dir()):
            found = f"it holds {sorted(there)[0]}" if there else "it is a file"
            raise BadRequest(f"--out {out}: is no folder of prepared data ({found}); name a new or an empty one")
        new = not out.exists()
        try:
            out.mkdir(parents=True, exist_ok=True)
            files.write_json(out / MARK, said)
        except OSError as error:
            raise BadRequest(f"--out {out}: cannot be written ({error.strerror})") from None
        return new

    def _compare(self, out: Path, said: dict[str, Any]) -> None:
        try:
            before = files.read_json(out / MARK)
        except RunError as error:
            raise BadRequest(f"--out {error}; remove the folder and prepare again") from None
        old, new = (compare.flatten(found.get("data") or {}) for found in (before, said))
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        remedy = "prepare into another folder, or remove this one"
        if changed:
            key = changed[0]
            was, wanted = (str(found.get(key, "nothing"))[:60] for found in (old, new))
            raise BadRequest(f"--out {out}: holds other data: {key} was {was} there and is {wanted} now; {remedy}")
        if before.get("key") != said["key"]:
            raise BadRequest(
                f"--out {out}: holds what the same sources were before they changed (files, the generators, or Python's own "
                f"sources); {remedy}"
            )

    def _described(self) -> dict[str, Any]:
        """The settings that determine the data."""
        described = dump(self.recipe.data)
        for name in ("cache", "sequence_length", "mixture", "stages", "temperature", "max_epochs", "experts"):
            if isinstance(self.recipe.data, TextData):
                described.pop(name, None)
        if isinstance(self.recipe.data, TextData) and self.recipe.data.mixed:
            described["mixed"] = sorted(self.recipe.data.mixed_names)
        return {"data": described}
