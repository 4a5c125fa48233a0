"""What `replace_convolutions` did, as data and as a table."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One convolution of the network.

    Attributes:
        name: Its dotted name, the first where it has several.
        convolution: Its type and sizes in words.
        reason: Why it was left, a sentence for people; None where ACmix has taken its place.
        heads: Heads of the operator; None where left.
        map_size: Height and width of the largest map it read in the example; None where the example did not reach it.
        parameters: Of the convolution, and of what stands in its place now.
        multiply_adds: The same for one image, all calls in the example together; None where it did not reach it.
        residual: With a warm start, the part of the kernel that the convolution path cannot express, as a share of the
            kernel's Frobenius norm, 0 to 1.
    """

    name: str
    convolution: str
    reason: str | None = None
    heads: int | None = None
    map_size: tuple[int, ...] | None = None
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int] | None = None
    residual: float | None = None

    @property
    def replaced(self) -> bool:
        """Whether ACmix has taken the convolution's place."""
        return self.reason is None


@dataclass(frozen=True)
class Report:
    """Every convolution of a network and what happened to it; `rich.print` shows a table."""

    layers: tuple[LayerReport, ...]

    @property
    def replaced(self) -> tuple[LayerReport, ...]:
        """The layers that are ACmix now."""
        return tuple(layer for layer in self.layers if layer.replaced)

    @property
    def left(self) -> tuple[LayerReport, ...]:
        """The layers that stayed as they were, each with its reason."""
        return tuple(layer for layer in self.layers if not layer.replaced)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"layers": [asdict(layer) | {"replaced": layer.replaced} for layer in self.layers]}

    def __str__(self) -> str:
        """Count in one line, then one line for each reason."""
        total = len(self.layers)
        lines = [f"{len(self.replaced)} of {total} convolutions replaced"]
        lines += [f"{count} left: {reason}" for reason, count in Counter(layer.reason for layer in self.left).items()]
        return "\n".join(lines)

    def __rich__(self) -> "Group":
        """A table of the replaced layers, then for each reason the names of those that were left."""
        from rich import box
        from rich.console import Group
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        columns = {
            "layer": [layer.name for layer in self.replaced],
            "convolution": [layer.convolution.removeprefix("Conv2d ") for layer in self.replaced],
            "heads": [str(layer.heads) for layer in self.replaced],
            "map": [" x ".join(map(str, layer.map_size or ())) for layer in self.replaced],
            "parameters": [_factor(layer.parameters) for layer in self.replaced],
            "MACs": [_factor(layer.multiply_adds) for layer in self.replaced],
            "residual": ["" if layer.residual is None else f"{layer.residual:.1%}" for layer in self.replaced],
        }
        shown = {heading: cells for heading, cells in columns.items() if any(cells)}
        table = Table(
            title=str(self).splitlines()[0],
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for heading in shown:
            number = heading not in ("layer", "convolution")
            table.add_column(heading, justify="right" if number else "left", no_wrap=heading != "convolution")
        for row in zip(*shown.values(), strict=True):
            table.add_row(*map(Text, row))
        names: dict[str, list[str]] = {}
        for layer in self.left:
            names.setdefault(str(layer.reason), []).append(layer.name)
        left = [
            Group(Text(f"{len(layers)} left: {reason}"), Padding(Text(", ".join(layers)), (0, 0, 0, 2)))
            for reason, layers in names.items()
        ]
        return Group(table, *left)


def _factor(change: tuple[int, int] | None) -> str:
    return "" if change is None else f"x {change[1] / change[0]:.2f}"
