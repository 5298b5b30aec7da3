"""Several processes that train as one: starting them, ending them, and what they tell each other.

Tensors of the model travel over Accelerate's own process group (NCCL on GPUs). Counts, decisions and small state travel
over a second, CPU-only group: asking "does anyone want to stop?" before every step must not wait for a GPU.

Gradients are summed here, once before each optimizer step, and not by DistributedDataParallel: an objective may run
several backward passes of parts of the model before a step (DESIGN section 3), which DDP's hooks cannot follow; and DDP
regroups its buckets after the first step, which changes the order of summation of three or more processes, so that a
resumed run would differ from an uninterrupted one in its last bits. Here the grouping is a function of the model.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType
from accelerate.utils import ProjectConfiguration
from torch import Tensor

from apps.common import allocator
from apps.common import precision as precisions
from apps.common.errors import BadRequest, TrainingFailed
from tinycore.optim.sharded import is_sharded

BUCKET_BYTES = 32 * 2**20
# a process that dies is noticed at once by its closed connection; this bounds only one that lives and does not answer,
# and must outlast whatever the main process does alone (preparing data, saving, sampling)
PATIENCE = timedelta(hours=12)
# where launchers that do not set torch's variables say how many processes they started
LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
BROKEN = re.compile(r"gloo|nccl|connection|process ?group", re.IGNORECASE)  # in what a failed exchange says
SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class World:
    """The processes of one run, seen from one of them."""

    def __init__(self, accelerator: Accelerator, precision: str) -> None:
        self.accelerator = accelerator
        self.precision = precision
        self.device: torch.device = accelerator.device
        self.size: int = accelerator.num_processes
        self.index: int = accelerator.process_index
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))  # of its processes, those on this machine
        self.is_main = self.index == 0
        self._control: dist.ProcessGroup | None = None
        if self.size > 1:
            with _contact():
                self._control = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PATIENCE))

    def total(self, *values: float) -> list[float]:
        """Sums over all processes, in float64 (whole numbers below 2**53 stay exact)."""
        if self._control is None:
            return list(values)
        with _contact():
            summed = torch.tensor(values, dtype=torch.float64)
            dist.all_reduce(summed, group=self._control)
        return summed.tolist()

    def gather(self, blob: bytes) -> list[bytes]:
        """Every process's bytes, in the order of the processes."""
        if self._control is None:
            return [blob]
        with _contact():
            sizes = torch.zeros(self.size, dtype=torch.int64)
            sizes[self.index] = len(blob)
            dist.all_reduce(sizes, group=self._control)
            padded = torch.zeros(int(sizes.max()), dtype=torch.uint8)
            if blob:
                padded[: len(blob)] = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
            gathered = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(gathered, padded, group=self._control)
        return [part[:size].numpy().tobytes() for part, size in zip(gathered, sizes.tolist(), strict=True)]

    def on_main(self, function: Callable[[], Any]) -> Any:
        """What `function`, run by the main process while the others wait, returns (JSON types) - in all of them.

        If it raises, it raises in the main process, and the others leave quietly with the same exit status.
        """
        if self._control is None:
            return function()
        answer: dict[str, Any] = {}
        try:
            if self.is_main:
                answer = {"value": function()}
        except BaseException as error:
            # refusals of every package are ValueErrors
            self._tell({"status": getattr(error, "status", 2 if isinstance(error, ValueError) else 1)})
            raise
        answer = self._tell(answer)
        if "status" in answer:
            raise SystemExit(answer["status"])
        return answer["value"]

    def _tell(self, answer: dict[str, Any]) -> dict[str, Any]:
        return json.loads(self.gather(json.dumps(answer).encode() if self.is_main else b"")[0])

    @contextlib.contextmanager
    def contact(self) -> Generator[None]:
        """Inside, what processes exchange beside this class - parts of tensors, within a model - may fail as it does here."""
        try:
            yield
        except RuntimeError as error:
            if self._control is None or not BROKEN.search(str(error)):
                raise
            raise _lost(error) from error

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every gradient by its sum over the processes; one that no process has stays None. Those in shards are sums
        since the backward pass."""
        parameters = [parameter for parameter in parameters if not is_sharded(parameter)]
        if self._control is None or not parameters:
            return
        with _contact():
            present = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
            dist.all_reduce(present, op=dist.ReduceOp.MAX, group=self._control)
            gradients = []
            for parameter, used_anywhere in zip(parameters, present.tolist(), strict=True):
                if used_anywhere:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    gradients.append(parameter.grad)
            pending = []
            for bucket in _buckets(gradients):
                flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
                pending.append((dist.all_reduce(flat, async_op=True), flat, bucket))
            for work, flat, bucket in pending:
                work.wait()
                pieces = flat.split([gradient.numel() for gradient in bucket])
                for gradient, piece in zip(bucket, pieces, strict=True):
                    gradient.copy_(piece.view_as(gradient))

    @torch.no_grad()
    def same_everywhere(self, tensors: Sequence[Tensor]) -> None:
        """Have every process hold the main process's values."""
        if self._control is None:
            return
        with _contact():
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def close(self) -> None:
        """End trackers and process groups; called by all processes at the end of their work."""
        self.accelerator.end_training()


def start(requested_device: str, requested_precision: str, processes: int, trackers: Sequence[str]) -> World:
    """Join the processes of this run. Raises BadRequest for a device or a number of processes that cannot be had."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", "1")))
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    for name in LAUNCHERS if expected == 1 else ():
        if os.environ.get(name, "1") not in ("0", "1"):
            raise BadRequest(
                f"{name} says {os.environ[name]} processes, and each would train alone; launch with "
                "`uv run torchrun --nproc_per_node N -m apps.pretrain`"
            )
    if processes not in (1, expected):
        raise BadRequest(f"--processes {processes}: the launcher started {expected}; leave the option out")
    device = device_type(requested_device, local)
    index = int(os.environ.get("LOCAL_RANK", "0")) if device == "cuda" else 0
    precision = precisions.resolve(requested_precision, torch.device(device, index))
    allocator.keep_freed_memory()
    with _contact() if expected > 1 else contextlib.nullcontext():
        try:
            accelerator = Accelerator(
                cpu=device == "cpu",
                mixed_precision="no" if precision == "fp32" else precision,
                log_with=list(trackers) or None,
                # trackers that need a directory get the run's once it is known
                project_config=ProjectConfiguration(project_dir=".", logging_dir="."),
            )
        except ValueError as error:
            raise BadRequest(f"train.trackers {list(trackers)}: {' '.join(str(error).split())}") from None
    if accelerator.distributed_type not in SUPPORTED:
        raise BadRequest(
            f"accelerate is configured for {accelerator.distributed_type.value}, which this trainer does not do; "
            "launch it for several GPUs or CPU processes, and shard with --train.sharding full"
        )
    if accelerator.num_processes != expected:
        raise BadRequest(
            f"the launcher started {expected} processes and {accelerator.num_processes} found each other; "
            "launch with `uv run torchrun --nproc_per_node N -m apps.pretrain`"
        )
    return World(accelerator, precision)


def device_type(requested: str, processes: int) -> str:
    """cpu, cuda or mps for `processes` processes on this machine; "auto" takes the best there is."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if requested == "auto":
        if gpus == 0:
            return "mps" if torch.backends.mps.is_available() and processes == 1 else "cpu"
        requested = "cuda"
    if requested == "cuda" and gpus < processes:
        have = f"{gpus} CUDA device{'s' if gpus > 1 else ''}" if gpus else "no CUDA device"
        raise BadRequest(f"--device cuda: {processes} needed, this machine has {have}; use --device cpu")
    if requested == "mps" and not torch.backends.mps.is_available():
        raise BadRequest("--device mps: this machine has no Metal device; use --device cpu")
    if requested == "mps" and processes > 1:
        raise BadRequest("--device mps: one process only; use --device cpu for more")
    return requested


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Consecutive tensors of one type, at most BUCKET_BYTES (or one larger tensor) together."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        more = tensor.numel() * tensor.element_size()
        if bucket and (size + more > BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += more
    if bucket:
        yield bucket


@contextlib.contextmanager
def _contact() -> Generator[None]:
    """A process group that fails means that another process is gone: one line, the run can be resumed."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, (TrainingFailed, torch.OutOfMemoryError)):
            raise
        raise _lost(error) from error


def _lost(error: RuntimeError) -> TrainingFailed:
    reason = " ".join(str(error).split())[:160]
    return TrainingFailed(
        f"lost another process of this run ({reason}); what was saved is intact, continue with --resume"
    )
