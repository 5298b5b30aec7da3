"""round_trip: a config is its plain data, and a saved model is the model."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from tinycore.checkpoint import WEIGHTS, load, save
from tinycore.model_config import ModelConfig
from tinycore.testing.probes import SINGLE, awake, require, rows_for


def round_trip(config: ModelConfig) -> None:
    """Config to JSON and back is equal; save and load give the same bits, logits and no more bytes than parameters."""
    plain = json.loads(json.dumps(config.to_dict()))
    require(ModelConfig.from_dict(plain) == config, "round_trip: the config differs after to_dict and from_dict")

    model = awake(config, SINGLE)
    with tempfile.TemporaryDirectory() as directory:
        save(model, directory)
        size = (Path(directory) / WEIGHTS).stat().st_size
        loaded = load(directory).eval()
    require(loaded.config == config, "round_trip: the config differs after save and load")
    before, after = model.state_dict(), loaded.state_dict()
    require(list(before) == list(after), "round_trip: tensor names or their order differ after save and load")
    for name, tensor in before.items():
        require(torch.equal(tensor, after[name]), f"round_trip: '{name}' differs after save and load")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    again = {name for name, parameter in loaded.named_parameters() if parameter.requires_grad}
    require(
        trained == again,
        f"round_trip: trained parameters differ after save and load: {sorted(trained ^ again)}",
    )
    # names, shapes and offsets take about 100 bytes a tensor: more means that shared weights were written twice
    stored = 4 * sum(tensor.numel() for tensor in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values())
    require(
        size <= stored + 256 * len(before) + 1024,
        f"round_trip: {size} bytes on disk for {stored} bytes of tensors",
    )

    rows = rows_for(config, 2, 16)
    with torch.no_grad():
        expected = model(rows.tokens, doc_ids=rows.doc_ids).logits
        found = loaded(rows.tokens, doc_ids=rows.doc_ids).logits
    require(torch.equal(expected, found), "round_trip: logits differ after save and load")
