"""The dtype in which Triton kernels multiply matrices; float32 products run as three TF32 products
("tf32x3"), which
keeps float32's accuracy on tensor cores. Imported by kernel modules only: it needs Triton."""

import torch
import triton.language as tl

from tinykernels.dispatch import interpreting

DTYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


def dot_dtype(dtype: torch.dtype) -> tl.dtype:
    """The tensors' own dtype; float32 under the interpreter, which multiplies bfloat16 as raw 16-bit integers."""
    return tl.float32 if interpreting() else DTYPES[dtype]
