"""A model directory as transformers writes it: config.json, *.safetensors in one file or several, tokenizer.json.

The weights are those of model.safetensors.index.json where there is one, else model.safetensors, else every
*.safetensors there is. Headers are read first, tensors one at a time when they are asked for; pickled weights never.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from apps.common import files
from apps.common.errors import BadRequest

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class Weights(Mapping[str, Tensor]):
    """The tensors of the model in `directory` by name. Raises BadRequest with one line for files that are not whole."""

    def __init__(self, directory: Path) -> None:
        self.places: dict[str, Path] = {}
        for file in _weight_files(directory):
            try:
                with safe_open(file, framework="pt") as stored:
                    names = list(stored.keys())
            except (SafetensorError, OSError) as error:
                raise BadRequest(f"{file}: not a readable safetensors file ({_one_line(error)})") from None
            for name in names:
                if name in self.places:
                    raise BadRequest(f"{file}: {_one_line(name)} is in {self.places[name].name} too")
                self.places[name] = file

    def __getitem__(self, name: str) -> Tensor:
        file = self.places[name]
        try:
            with safe_open(file, framework="pt") as stored:
                return stored.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise BadRequest(f"{file}: {name} cannot be read ({_one_line(error)})") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def _weight_files(directory: Path) -> list[Path]:
    if (directory / INDEX).is_file():
        listed = files.read_json(directory / INDEX).get("weight_map")
        if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
            raise BadRequest(f"{directory / INDEX}: has no weight_map from tensors to files")
        names = sorted(set(listed.values()))
        odd = [name for name in names if Path(name).name != name or not (directory / name).is_file()]
        if odd:
            raise BadRequest(f"{directory / INDEX}: names {_one_line(odd[0])}, and the directory has no such file")
        return [directory / name for name in names]
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    found = sorted(directory.glob("*.safetensors"))
    if not found:
        raise BadRequest(f"{directory}: has no *.safetensors; weights in other formats (.bin, .pt) are never read")
    return found


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())[:200]
