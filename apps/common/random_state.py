"""The state of every random number generator a training step may draw from, as bytes (safetensors, no pickle)."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from apps.common.errors import RunError


def capture(device: torch.device) -> bytes:
    """The generators of Python, NumPy, torch and `device` as they are now."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 (libraries draw from the global one)
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.tensor(np.asarray(keys, dtype=np.int64)),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        tensors["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        tensors["device"] = torch.mps.get_rng_state()
    scalars = {
        "python": [version, gauss],
        "numpy": [name, int(position), int(has_gauss), float(cached)],
        "device": device.type,
    }
    return save(tensors, metadata={"scalars": json.dumps(scalars)})


def restore(content: bytes, device: torch.device, origin: str) -> None:
    """Put every generator where `capture` found it; a device of another kind keeps its own. Raises RunError."""
    try:
        tensors = load(content)
        # safetensors: 8 bytes of length, then a JSON header that holds the metadata
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        scalars = json.loads(header["__metadata__"]["scalars"])
        version, gauss = scalars["python"]
        random.setstate((version, tuple(tensors["python"].tolist()), gauss))
        name, position, has_gauss, cached = scalars["numpy"]
        np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
        torch.set_rng_state(tensors["torch"])
        if scalars["device"] == device.type == "cuda":
            torch.cuda.set_rng_state(tensors["device"], device)
        elif scalars["device"] == device.type == "mps":
            torch.mps.set_rng_state(tensors["device"])
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise RunError(
            f"{origin}: not the state of random number generators ({' '.join(str(error).split())})"
        ) from None


def seed(number: int, process: int, step: int) -> None:
    """Give this process generators of its own: its draws differ from those of the others and of other steps."""
    word = int.from_bytes(hashlib.sha256(f"{number}/{process}/{step}".encode()).digest()[:4], "little")
    random.seed(word)
    np.random.seed(word)  # noqa: NPY002
    torch.manual_seed(word)
