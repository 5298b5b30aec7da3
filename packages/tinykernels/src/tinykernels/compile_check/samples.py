"""One call of every operation at the shapes of a tiny model, forward and backward, on meta tensors.

An operation's samples are in its own `samples.py`: `samples() -> dict[label, call]`, each call running host
code that launches Triton kernels. Shapes are those of a 25M-parameter model: 32768 tokens of width 512, 8
query and 2 key heads of 64, 8192 vocabulary entries; in bfloat16 and, where the arithmetic differs,
float32.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable

import tinykernels


def operations() -> list[str]:
    """The operations that have Triton kernels: the subpackages with a samples module."""
    packages = [module.name for module in pkgutil.iter_modules(tinykernels.__path__) if module.ispkg]
    found = {name: importlib.util.find_spec(f"tinykernels.{name}.samples") for name in sorted(packages)}
    return [name for name, spec in found.items() if spec is not None and name != "compile_check"]


def samples() -> dict[str, Callable[[], object]]:
    """Every operation's sample calls under "operation label"."""
    calls: dict[str, Callable[[], object]] = {}
    for operation in operations():
        module = importlib.import_module(f"tinykernels.{operation}.samples")
        calls |= {f"{operation} {label}": call for label, call in module.samples().items()}
    return calls
