"""Records what an operation would launch, without a GPU: its host code runs on meta tensors, and every
Triton launch
is kept instead of performed, so that the compiled kernels are those a user gets, tile sizes included."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
}


@dataclass(frozen=True)
class Launch:
    """One kernel with the types, constants and options of one launch."""

    kernel: Any  # a triton.JITFunction
    signature: dict[str, str]
    constants: dict[str, Any]
    aligned: tuple[str, ...]  # arguments that are multiples of 16
    options: dict[str, int]  # num_warps, num_stages

    @property
    def name(self) -> str:
        return self.kernel.__name__

    def compile(self, target: tuple[int, int]) -> Any:
        """The compiled kernel for a card of capability `target`."""
        names = list(self.kernel.arg_names)
        attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in self.aligned}
        constants = {(names.index(name),): value for name, value in self.constants.items()}
        source = triton.compiler.ASTSource(self.kernel, self.signature, constants, attributes)
        arch = GPUTarget("cuda", 10 * target[0] + target[1], 32)
        return triton.compile(source, target=arch, options=self.options)


def describe(kernel: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Launch:
    """The launch that `kernel[grid](*arguments, **keywords)` asks for."""
    names = list(kernel.arg_names)
    options = {key: value for key, value in keywords.items() if key in ("num_warps", "num_stages")}
    bound = dict(zip(names, arguments, strict=False)) | {k: v for k, v in keywords.items() if k in names}
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    aligned: list[str] = []
    for parameter in kernel.params:
        name, value = parameter.name, bound[parameter.name]
        specialised = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (specialised and is_one(value)):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            aligned.append(name)
        elif isinstance(value, bool):
            signature[name] = "i1"
        elif isinstance(value, int):
            signature[name] = "i32" if abs(value) < 2**31 else "i64"
            if specialised and value % 16 == 0:
                aligned.append(name)
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            raise TypeError(f"{kernel.__name__}: cannot describe argument {name} of type {type(value).__name__}")
    return Launch(kernel, signature, constants, tuple(aligned), options)


def is_one(value: object) -> bool:
    """Whether Triton compiles the value in: the integer 1, not True and not 1.0."""
    return type(value) is int and value == 1


@contextmanager
def recorded() -> Generator[list[Launch]]:
    """Collect the launches made within the block instead of performing them."""
    launches: list[Launch] = []
    original: Callable[..., Any] = JITFunction.run

    def record(kernel: Any, *arguments: Any, **keywords: Any) -> None:
        launches.append(describe(kernel, arguments, keywords))

    JITFunction.run = record
    try:
        yield launches
    finally:
        JITFunction.run = original
