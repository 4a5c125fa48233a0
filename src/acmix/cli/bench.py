"""The subcommands of `acmix bench`."""

import os
import re
from pathlib import Path
from typing import Any, Literal

from acmix.cli import outputs
from acmix.errors import InputError, counted
from acmix.storage import write_atomically

Dtype = Literal["float32", "float64", "float16", "bfloat16"]


def layer(
    *,
    shapes: str | None = None,
    batch_size: int = 4,
    dtype: Dtype = "float32",
    channels_last: bool = False,
    bounds: bool = False,
    compile: bool = False,  # noqa: A002  the option's name
    device: str = "cpu",
    graphs: bool = False,
    threads: int | None = None,
    seconds: float = 10.0,
    output: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Time the operator's backends, its unfold formulation and a 3x3 convolution of the same width.

    Args:
        shapes: Layers as CHANNELSxSIZE or CHANNELSxSIZE/STRIDE, comma-separated (default: those of ResNet-50 at 224).
        batch_size: Images a call.
        dtype: Of input and weights.
        channels_last: Memory format of input and weights.
        bounds: Show what forward passes take at least on this processor, and the share reached.
        compile: Measure torch.compile of every candidate.
        device: cpu, cuda, cuda:1 (any number), or auto.
        graphs: Time CUDA graphs, so that launches cost nothing; for cuda.
        threads: Threads of PyTorch (default: PyTorch's own choice).
        seconds: Time to spend on each comparison; there are two for each layer.
        output: A JSON file for the results.
        plot: A PNG or SVG file for a plot of the results.
    """
    chosen = _shapes(shapes) if shapes else None
    _check(batch_size=batch_size, seconds=seconds, threads=threads, output=output, plot=plot)
    from acmix.cli.display import bench as display
    from acmix.cli.display import progress

    with progress.working():
        device = _check_device(device, graphs)
        if bounds and device != "cpu":
            raise InputError(
                f"--bounds are those of a processor, got --device {device}; acmix bench kernels has a GPU's"
            )
        import torch

        from acmix import bench

        _set_threads(threads)
        machine = bench.machine()
    comparisons: list[bench.Comparison] = []
    display.show_machine(machine)
    layers = chosen or bench.RESNET50_LAYERS
    with display.measuring(counted(len(layers), "layer"), seconds * (2 * len(layers) + bounds)) as tell:
        speeds = bench.measure_speeds(getattr(torch, dtype), seconds, tell) if bounds else None
        for channels, size, stride in layers:
            comparisons.append(
                bench.compare_layer(
                    channels,
                    size,
                    stride,
                    batch=batch_size,
                    dtype=getattr(torch, dtype),
                    channels_last=channels_last,
                    compiled=compile,
                    device=device,
                    graphs=graphs,
                    speeds=speeds,
                    seconds=seconds,
                    tell=tell,
                )
            )
            display.show_comparison(comparisons[-1])
            if speeds is not None:
                display.show_forward_bounds(comparisons[-1])
            _save(machine, output, plot, comparisons=comparisons)
    return 0


def model(
    *,
    models: str = "acmix_resnet50,resnet50",
    baseline: str | None = None,
    image_size: int = 224,
    batch_size: int = 4,
    dtype: Dtype = "float32",
    fused: bool = False,
    autocast: bool = False,
    compile: bool = False,  # noqa: A002  the option's name
    device: str = "cpu",
    graphs: bool = False,
    threads: int | None = None,
    seconds: float = 60.0,
    output: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Time whole networks side by side, forward and forward + backward, in both memory formats.

    Args:
        models: timm's names of the networks, comma-separated.
        baseline: The network that ratios are to (default: the last of the models).
        image_size: Side of the square images in pixels.
        batch_size: Images a call.
        dtype: Of images and weights.
        fused: Measure acmix.fuse of every network: for inference, so forward alone.
        autocast: Compute in bfloat16 under torch.autocast, on weights in float32.
        compile: Measure torch.compile of every network.
        device: cpu, cuda, cuda:1 (any number), or auto.
        graphs: Time CUDA graphs, so that launches cost nothing; for cuda.
        threads: Threads of PyTorch (default: PyTorch's own choice).
        seconds: Time to spend on each of the two comparisons.
        output: A JSON file for the results.
        plot: A PNG or SVG file for a plot of the results.
    """
    names = [name.strip() for name in models.split(",")]
    baseline = baseline or names[-1]
    if baseline not in names:
        raise InputError(f"--baseline must be one of --models, {models}, got {baseline!r}")
    if autocast and dtype != "float32":
        raise InputError(f"--autocast casts weights of float32 by itself, got --dtype {dtype}")
    _check(batch_size=batch_size, seconds=seconds, threads=threads, image_size=image_size, output=output, plot=plot)
    from acmix.cli.display import bench as display
    from acmix.cli.display import progress

    with progress.working():
        device = _check_device(device, graphs)
        import torch

        from acmix import bench
        from acmix.tasks.classification.networks import create_network
        from acmix.tasks.loop.trials import check_batch, check_input_size

        _set_threads(threads)
        torch.manual_seed(0)
        networks = {name: create_network(name) for name in names}
    size = (3, image_size, image_size)
    for name, network in networks.items():
        check_input_size(network, name, size)
        check_batch(network, name, size, batch_size)
    machine = bench.machine()
    display.show_machine(machine)
    with display.measuring(counted(len(networks), "network"), seconds if fused else 2 * seconds) as tell:
        comparison = bench.compare_networks(
            networks,
            baseline,
            input_size=size,
            batch=batch_size,
            dtype=getattr(torch, dtype),
            fused=fused,
            autocast=autocast,
            compiled=compile,
            device=device,
            graphs=graphs,
            seconds=seconds,
            tell=tell,
        )
    display.show_comparison(comparison)
    _save(machine, output, plot, comparisons=[comparison])
    return 0


def kernels(
    *,
    shapes: str | None = None,
    batch_size: int = 128,
    dtype: Dtype = "bfloat16",
    device: str = "cuda",
    seconds: float = 10.0,
    output: Path | None = None,
) -> int:
    """Time every Triton kernel of a layer beside what its bytes, products and instructions must take at least.

    Args:
        shapes: Layers as CHANNELSxSIZE or CHANNELSxSIZE/STRIDE, comma-separated (default: those of ResNet-50 at 224).
        batch_size: Images a call.
        dtype: Of the maps.
        device: cuda; cpu is for Triton's interpreter (TRITON_INTERPRET=1).
        seconds: Time to spend on the kernels of a layer, and on the device's own speed.
        output: A JSON file for the results.
    """
    chosen = _shapes(shapes) if shapes else None
    _check(batch_size=batch_size, seconds=seconds, output=output, plot=None)
    from acmix.cli.display import bench as display
    from acmix.cli.display import progress

    with progress.working():
        device = _check_device(device, graphs=False)
        import torch

        from acmix import bench, ops

    place, kind = torch.device(device), getattr(torch, dtype)
    layers = chosen or bench.RESNET50_LAYERS
    for channels, _, stride in layers:
        maps = torch.empty(0, 12, channels // 4, 1, 1, dtype=kind, device=place)
        reason = ops.why_not("triton", maps, stride=stride)
        if reason is not None:
            raise InputError(f"the Triton kernels cannot run here: {reason}")
    machine = bench.machine()
    display.show_machine(machine)
    results: list[bench.LayerBounds] = []
    with display.measuring(f"kernels of {counted(len(layers), 'layer')}", seconds * (1 + len(layers))) as tell:
        options: dict[str, Any] = {
            "batch": batch_size,
            "dtype": kind,
            "device": place,
            "seconds": seconds,
            "tell": tell,
        }
        rates = bench.measure_rates(place, kind, seconds, tell)
        for channels, size, stride in layers:
            results.append(bench.bound_layer(channels, size, stride, rates=rates, **options))
            display.show_bounds(results[-1])
            _save(machine, output, None, bounds=results)
    return 0


def scaling(
    axis: Literal["pixels", "images"],
    *,
    channels: int = 16,
    largest: int | None = None,
    threads: int | None = None,
    seconds: float = 3.0,
    output: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Time one layer at growing sizes and fit the exponents of time and memory, on the CPU.

    Args:
        axis: pixels (one square map, 128 to 2048 wide) or images (1 to 32 maps of 56 x 56).
        channels: Channels of the layer, in and out.
        largest: Leave out wider maps or larger batches.
        threads: Threads of PyTorch (default: PyTorch's own choice).
        seconds: Time to spend on each size and direction.
        output: A JSON file for the results.
        plot: A PNG or SVG file for a plot of the results.
    """
    _check(channels=channels, seconds=seconds, threads=threads, output=output, plot=plot)
    smallest = 256 if axis == "pixels" else 2
    if largest is not None and largest < smallest:
        raise InputError(f"--largest must be at least {smallest} for {axis}, so that two sizes are left, got {largest}")
    if channels % 4:
        raise InputError(f"--channels must be divisible by the 4 heads, got {channels}")
    from acmix.cli.display import bench as display
    from acmix.cli.display import progress

    with progress.working():
        from acmix import bench

        _set_threads(threads)
        machine = bench.machine()
    display.show_machine(machine)
    sizes = bench.sizes_of(axis, largest)
    with display.measuring(counted(len(sizes), "size"), 2 * seconds * len(sizes)) as tell:
        result = bench.scale(axis, channels=channels, seconds=seconds, largest=largest, tell=tell)
    display.show_scaling(result)
    _save(machine, output, plot, scalings=[result])
    return 0


def _shapes(text: str) -> list[tuple[int, int, int]]:
    shapes = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d*)x([1-9]\d*)(?:/([1-9]\d*))?\s*", part)
        if match is None:
            raise InputError(f"--shapes must be like 64x56,128x56/2 (channels x size / stride), got {part!r}")
        channels, size, stride = int(match[1]), int(match[2]), int(match[3] or 1)
        if channels % 4 or size < 4:
            raise InputError(
                f"--shapes needs channels divisible by the 4 heads, and maps of at least 4 cells, got {part!r}"
            )
        shapes.append((channels, size, stride))
    return shapes


def _check(*, output: Path | None, plot: Path | None, **numbers: float | None) -> None:
    for name, value in numbers.items():
        if value is not None and value <= 0:
            raise InputError(f"--{name.replace('_', '-')} must be positive, got {value}")
    outputs.check_file("--output", output)
    outputs.check_file("--plot", plot, outputs.PICTURES)
    # PyTorch, which is not loaded yet, warns of every block that is freed while its memory is measured.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _check_device(device: str, graphs: bool) -> str:
    """The device to measure on, by its plain name; a GPU becomes the one that all is done on."""
    import torch

    from acmix.devices import find_device

    place = find_device(device)
    if place.type not in ("cpu", "cuda"):
        raise InputError(f"--device must be cpu or cuda to measure time and memory on, got {device}, which is {place}")
    if graphs and place.type != "cuda":
        raise InputError(f"--graphs are CUDA graphs: they need --device cuda, got --device {device}")
    if place.index is not None:
        torch.cuda.set_device(place)
    return str(place)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _save(machine: dict[str, object], output: Path | None, plot: Path | None, **results: Any) -> None:
    if output is not None:
        from acmix import bench

        bench.save(machine, output, **results)
    if plot is not None:
        from acmix.pages import plots

        write_atomically(plot, plots.benchmark(plot.suffix[1:], **results))
