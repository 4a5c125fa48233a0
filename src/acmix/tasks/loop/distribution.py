"""How many processes train together, and how they share a network: Lightning Fabric on torchrun, SLURM or by itself."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, cast

import torch.distributed
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from acmix.devices import find_device
from acmix.errors import InputError, check_least, first_line, in_one_line
from acmix.tasks.loop.settings import Precision

Strategy = Literal["ddp", "fsdp"]

_PRECISION: dict[Precision, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "float32": "32-true",
    "bfloat16": "bf16-mixed",
    "float16": "16-mixed",
}


def make_fabric(
    precision: Precision, *, device: str = "auto", devices: int | None = None, strategy: Strategy = "ddp"
) -> Fabric:
    """The processes of a run.

    Args:
        precision: float32, or automatic mixed precision.
        device: As `acmix.devices.find_device` takes it; one with a number is for one process.
        devices: Processes on this machine, each with an accelerator of its own where there are any; None asks the
            launcher (torchrun, SLURM), and is one without a launcher.
        strategy: Every process holds the network and gradients are averaged (ddp), or each holds a part of every
            layer (fsdp, PyTorch's `fully_shard`).

    Raises:
        InputError: If an argument breaks its rule or contradicts the launcher.
    """
    here, nodes = _launched()
    place = find_device(device)
    check_least(1, devices=devices)
    if None not in (here, devices) and here != devices:
        raise InputError(f"devices is {devices}, but the launcher started {here} processes here; leave devices out")
    if strategy == "fsdp" and precision == "float16":
        raise InputError("strategy fsdp does not scale the losses of float16; choose bfloat16")
    if precision == "float16" and place.type == "cpu":
        raise InputError("precision float16 needs an accelerator; choose bfloat16 or float32, or another device")
    count = here or devices or 1
    if place.index is not None and count * nodes > 1:
        raise InputError(f"device {device} is one, {count * nodes} processes want one each; give cuda")
    kind: Any = "auto"
    if strategy == "fsdp":
        kind = ModelParallelStrategy(
            parallelize_fn=_shard_blocks, data_parallel_size=count * nodes, tensor_parallel_size=1
        )
    elif count * nodes > 1:
        kind = DDPStrategy(gradient_as_bucket_view=True)
    try:
        return Fabric(
            accelerator="auto" if device == "auto" else place.type,
            devices=count if place.index is None else [place.index],
            num_nodes=nodes,
            strategy=kind,
            precision=_PRECISION[precision],
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{count} devices cannot be used: {in_one_line(error, 400)}") from error


def _launched() -> tuple[int | None, int]:
    """Processes on this machine and machines, as the launcher says."""
    if TorchElasticEnvironment.detect():
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        return here, int(os.environ["WORLD_SIZE"]) // here
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", "1"))
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return None, 1


def launcher() -> list[str]:
    """What a person types before `acmix` for the launcher to start these processes again; nothing for one alone."""
    here, machines = _launched()
    if here is None or here * machines == 1:
        return []
    if not TorchElasticEnvironment.detect():
        gpus = os.environ.get("SLURM_GPUS_PER_NODE")
        asked = [] if gpus is None else ["--gpus-per-node", gpus]
        return ["srun", "--nodes", str(machines), "--ntasks-per-node", str(here), *asked]
    # Where machines meet, torchrun does not tell its processes.
    meeting = f"--nnodes {machines} --rdzv-backend c10d --rdzv-endpoint HOST:PORT".split() if machines > 1 else []
    return ["torchrun", *meeting, "--nproc-per-node", str(here), "-m"]


def _shard_blocks(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Split a network over the processes block by block: those grandchildren of timm's networks that have parts."""
    data = mesh["data_parallel"]
    for stage in network.children():
        for block in stage.children():
            if any(True for _ in block.children()):
                fully_shard(block, mesh=data)
    # The same object, of a class that is also FSDPModule.
    fully_shard(network, mesh=data)
    return network


def shard(fabric: Fabric, network: nn.Module) -> nn.Module:
    """Split a network that Fabric does not train, its average for instance, as Fabric splits those that it does."""
    strategy = fabric.strategy
    return _shard_blocks(network, strategy.device_mesh) if isinstance(strategy, ModelParallelStrategy) else network


def summed(fabric: Fabric, values: Tensor) -> Tensor:
    """Sums over all processes."""
    return cast("Tensor", fabric.all_reduce(values, reduce_op="sum")) if fabric.world_size > 1 else values


@contextmanager
def patience(fabric: Fabric) -> Iterator[Callable[[Any], list[Any]]]:
    """For work of unknown length: gives a function that gathers what every process made, however long each took.

    Collectives of the process group itself give up after its time-out, 10 to 30 minutes.
    """
    if fabric.world_size == 1:
        yield lambda made: [made]
        return
    group = cast("ProcessGroup", torch.distributed.new_group(backend="gloo", timeout=timedelta(days=365)))

    def gather(made: Any) -> list[Any]:
        gathered: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(gathered, made, group=group)
        return gathered

    try:
        yield gather
    finally:
        torch.distributed.destroy_process_group(group)


def lost(error: BaseException) -> str | None:
    """That another process of the run is gone, in a sentence; None where an error tells another thing."""
    said = first_line(error)
    if not isinstance(error, torch.distributed.DistError):
        # gloo has no class of its own: its errors are a place in its source, what happened, and advice.
        if "/gloo/" not in said:
            return None
        said = said.partition("] ")[2].partition(". ")[0]
    return f"another process of this run ended or cannot be reached ({said}); what it said last tells why"


def readers(fabric: Fabric) -> int:
    """Processes that read images, for each that trains: the cores that this one may use are shared among them."""
    # A scheduler or a container may leave few of the machine's.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here, _ = _launched()
    # SLURM binds each task to cores of its own.
    own = "" if TorchElasticEnvironment.detect() else os.environ.get("SLURM_CPUS_PER_TASK")
    share = min(cores, int(own)) if own and here else cores // (here or fabric.world_size)
    # More only wait for the network.
    return max(1, min(8, share))
