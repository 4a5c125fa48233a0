"""What `acmix bench` shows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from rich import get_console

from acmix.cli.display.progress import ProgressLine
from acmix.cli.display.tables import make_table
from acmix.errors import counted

if TYPE_CHECKING:
    from acmix.bench import Comparison, LayerBounds, Scaling

# Columns in which a time and its median stand beside each other.
_WIDE = 100
# What bounds the time of a kernel (`acmix.bench.bounds`).
_BOUNDS = ("bytes", "products", "instructions")


@contextmanager
def measuring(what: str, seconds: float) -> Iterator[Callable[[float], None]]:
    """Show how far measuring is; what is given is to be told the seconds spent, between runs."""
    with ProgressLine(f"measuring {what}", seconds, "second", measuring=True) as line:
        yield line.advance


def show_machine(machine: dict[str, object]) -> None:
    """Show what a benchmark runs on."""
    get_console().print(
        f"{machine['processor']} ({machine['instructions']}, compiled kernels: {machine['kernels'] or 'none'}), "
        f"{counted(cast(int, machine['threads']), 'thread')}, torch {machine['torch']}; "
        f"the machine withholds {machine['withheld_share']:.0%} of a thread's time",
        highlight=False,
    )


def show_comparison(comparison: "Comparison") -> None:
    """Show one case of `acmix bench`: fastest run and median, ratios of the fastest to the baseline, memory."""
    base = comparison.candidates[comparison.baseline]
    names = ("forward", "forward + backward")[: len(base.passes)]
    table = make_table(comparison.title)
    table.add_column("candidate")
    times = ("forward,\nms", "ratio", "forward +\nbackward,\nms", "ratio")[: 2 * len(names)]
    for heading in (*times, "memory,\nMB", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    between = " " if get_console().width >= _WIDE else "\n"
    for name, measured in comparison.candidates.items():
        cells: list[str] = []
        for (timing, _), (other, _) in zip(measured.passes, base.passes, strict=True):
            cells += [
                f"{1e3 * timing.fastest:.1f}{between}({1e3 * timing.median:.1f})",
                f"{timing.fastest / other.fastest:.2f}",
            ]
        memory = " / ".join(f"{held / 1e6:,.0f}" for _, held in measured.passes)
        table.add_row(name, *cells, memory, f"{measured.passes[-1][1] / base.passes[-1][1]:.2f}")
    table.caption = (
        f"times: fastest of interleaved runs (median); memory: peak of the allocator, {' / '.join(names)}; "
        f"ratios to {comparison.baseline}, of the fastest runs and of the memory of {names[-1]}"
    )
    console = get_console()
    console.print(table)
    if "networks" in comparison.settings:
        batch = cast(int, comparison.settings["batch"])
        for name, measured in comparison.candidates.items():
            forward, *training = (f"{batch / timing.fastest:,.1f}" for timing, _ in measured.passes)
            rest = "".join(f", {speed} forward + backward" for speed in training)
            console.print(f"{name}: {forward} images/s{rest}", highlight=False)


def show_forward_bounds(comparison: "Comparison") -> None:
    """Show what the forward passes of a layer must take at least, and how near they come."""
    table = make_table("at least")
    table.add_column("forward, ms", no_wrap=True)
    for heading in ("fastest", "bytes", "products", "exponentials", "share"):
        table.add_column(heading, justify="right")
    for name, bound in comparison.bounds.items():
        seconds = (comparison.candidates[name].forward.fastest, bound.bytes, bound.products, bound.exponentials)
        table.add_row(name, *(f"{1e3 * part:.2f}" for part in seconds), f"{bound.share:.0%}")
    table.caption = (
        "at the speed, measured here, of a copy, of a matrix product or convolution, and of 8 multiply-adds; "
        "share: of the bytes, or of products and exponentials together"
    )
    get_console().print(table)


def show_bounds(layer: "LayerBounds") -> None:
    """Show the kernels of one layer: the fastest launch, what it must take at least, and the share of that."""
    table = make_table(layer.title)
    table.add_column("kernel, us", no_wrap=True)
    for heading in ("fastest", *_BOUNDS, "share"):
        table.add_column(heading, justify="right")
    for name, kernel in layer.kernels.items():
        least = (f"{1e6 * kernel.bounds[kind]:,.1f}" if kind in kernel.bounds else "-" for kind in _BOUNDS)
        table.add_row(name, f"{1e6 * kernel.time.fastest:,.1f}", *least, f"{kernel.share:.0%}")
    table.caption = (
        "least time of bytes, products and instructions, share of the longest; measured here: "
        f"{layer.rates.bytes / 1e9:,.0f} GB/s of a copy, {layer.rates.flops / 1e12:,.1f} TFLOP/s of a product"
    )
    get_console().print(table)


def show_scaling(scaling: "Scaling") -> None:
    """Show growth and the fitted exponents."""
    table = make_table(f"one layer over {scaling.axis}")
    for heading in (scaling.axis, "forward, ms", "forward + backward, ms", "memory, MB"):
        table.add_column(heading, justify="right")
    for point in scaling.points:
        memory = f"{point.forward_memory / 1e6:,.0f} / {point.training_memory / 1e6:,.0f}"
        table.add_row(f"{point.count:,}", f"{1e3 * point.forward:.1f}", f"{1e3 * point.training:.1f}", memory)
    fitted = scaling.exponents
    table.add_row(
        "exponent",
        f"{fitted['forward']:.2f}",
        f"{fitted['training']:.2f}",
        f"{fitted['forward_memory']:.2f} / {fitted['training_memory']:.2f}",
    )
    get_console().print(table)
