"""An imported model as a run: one checkpoint at step 0, and a recipe that trains it on.

The directory appears whole or not at all, its status is `done`: it can be talked to and trained from (--init-from),
and there is nothing in it to be resumed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tinycore
from apps.common import checkpoints, files, recipes, run_directory
from apps.common.pretrained.source import Imported

BYTES_PER_PARAMETER = 4
SEQUENCE_LENGTH = 512
STEP = 0


def write(imported: Imported, source: Path, out: Path) -> Path:
    """The run directory made of `imported`, at `out` or at the first free `out`-2, -3, ...; RunError."""
    path = run_directory.vacant(out)
    checkpoint = Path("checkpoints") / checkpoints.directory_of(STEP)
    lineage = [{"event": "import", "source": str(source), **imported.facts}]
    recipe = recipes.from_dict(_recipe(imported, source, path / checkpoint))
    parameters = tinycore.count(imported.model.config).parameters
    with run_directory.new(path) as directory:
        files.require_space(directory, BYTES_PER_PARAMETER * parameters)
        tinycore.save(imported.model, directory / checkpoint)
        imported.tokenizer.save(directory / checkpoint)
        tinycore.checkpoint.write_manifest(directory / checkpoint)
        for pointer in ("best", "latest"):
            files.write_text(directory / pointer, f"{checkpoint.name}\n")
        files.write_text(directory / "recipe.yaml", recipes.to_yaml(recipe))
        status = {"status": "done", "step": STEP, "lineage": lineage, "parameters": parameters}
        files.write_json(directory / "status.json", status)
    return path


def _recipe(imported: Imported, source: Path, checkpoint: Path) -> dict[str, Any]:
    """Continued pretraining that two CPU cores finish and that does not undo what the model knows: short rows, few of
    them a step, a small learning rate that is warmed up, since AdamW's first steps know nothing of the gradient's size.
    """
    config = imported.model.config
    return {
        "description": f"continued pretraining of {imported.facts.get('name') or source.name}",
        "model": config.to_dict(),
        "data": {
            "sources": [{"kind": "embedded", "documents": 15000}],
            "tokenizer": {"kind": "file", "path": str(checkpoint / "tokenizer.json")},
            "sequence_length": min(SEQUENCE_LENGTH, config.max_seq_len),
        },
        "optim": {"kind": "adamw", "learning_rate": 1e-4, "schedule": {"kind": "wsd", "warmup": 10}},
        "train": {
            "steps": 100,
            "batch_size": 2,
            "log_every": 5,
            "validate_every": 50,
            "validate_rows": 16,
            "save_every": 0,
            "keep": 1,
        },
        "sample": {"prompts": ["The capital of France is", "def ", "Once upon a time"], "max_new_tokens": 40},
    }
