"""What a cell imports, sooner or later: apps/ablate/nursery.py has it imported once for all of them."""

import importlib

NEEDED = (
    "torch._dynamo",  # the optimizers of torch import it when they are made
    "apps.pretrain.__main__",
    "apps.common.report",  # drawing
    "tinycore.ops.kernels",
)

for name in NEEDED:
    importlib.import_module(name)
