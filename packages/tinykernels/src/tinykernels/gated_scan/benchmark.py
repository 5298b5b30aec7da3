"""Benchmark cases of gated_scan against the loop over unbound positions."""

import torch

from tinykernels.bench import rivals
from tinykernels.bench.case import Case, gradient_error, relative_error, training_step
from tinykernels.gated_scan.operation import gated_scan


def cases(device: str) -> list[Case]:
    """Forward, and forward + backward: 32 x 1024 x 512 bfloat16 on a GPU, 4 x 512 x 512 float32 on a CPU."""
    gpu = device == "cuda"
    shape, dtype = ((32, 1024, 512), torch.bfloat16) if gpu else ((4, 512, 512), torch.float32)
    forget = torch.rand(shape, device=device).to(dtype).requires_grad_()
    value = torch.randn(shape, device=device).to(dtype).requires_grad_()
    upstream = torch.randn(shape, device=device).to(dtype)
    exact = tuple(t.detach().double().requires_grad_() for t in (forget, value))

    def ours(forget: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return gated_scan(forget, value)[0]

    def loop(forget: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        hidden, outputs = torch.zeros_like(value[:, 0]), []
        for gate, entering in zip(forget.unbind(1), value.unbind(1), strict=True):
            hidden = torch.addcmul(entering, gate, hidden)
            outputs.append(hidden)
        return torch.stack(outputs, 1)

    leaves = {"loop": (forget, value)}
    calls: rivals.Rivals = {"loop": loop}
    if gpu:
        for name, call in rivals.fla_gated_scan().items():
            # fla's gates are logarithms, which its layer makes without an exponential
            calls[name], leaves[name] = call, (forget.detach().clamp(min=1e-6).log().requires_grad_(), value)
    step = training_step(ours, (forget, value), upstream)
    bound, traffic = (2e-2 if gpu else 1e-5), value.numel() * value.element_size()
    size = "x".join(str(n) for n in shape)
    return [
        Case(
            operation="gated_scan",
            label=f"{size} forward",
            ours=lambda: ours(forget.detach(), value.detach()),
            error=lambda: relative_error(ours(forget, value), loop(*exact)),
            bound=bound,
            rivals={
                name: lambda call=call, tensors=leaves[name]: call(*(tensor.detach() for tensor in tensors))
                for name, call in calls.items()
            },
            bytes=3.0 * traffic,
            share=0.6 if gpu else None,
        ),
        Case(
            operation="gated_scan",
            label=f"{size} forward + backward",
            ours=step,
            error=gradient_error(step, training_step(loop, exact, upstream.double())),
            bound=bound,
            rivals={name: training_step(call, leaves[name], upstream) for name, call in calls.items()},
            bytes=8.0 * traffic,
            share=0.6 if gpu else None,
        ),
    ]
