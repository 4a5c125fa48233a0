"""What `replace_convolutions` did, as data and as a table."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table


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

    def __rich__(self) -> "Table":
        """The table: one row a layer."""
        from rich import box
        from rich.table import Table

        table = Table(title=str(self).splitlines()[0], title_justify="left", box=box.SIMPLE)
        optional = {
            "heads": [layer.heads for layer in self.layers],
            "map": [layer.map_size and " x ".join(map(str, layer.map_size)) for layer in self.layers],
            "multiply-adds": [layer.multiply_adds and _change(layer.multiply_adds, 1e6) for layer in self.layers],
            "residual": [None if layer.residual is None else f"{layer.residual:.1%}" for layer in self.layers],
        }
        shown = {heading: cells for heading, cells in optional.items() if any(cell is not None for cell in cells)}
        table.add_column("layer")
        table.add_column("convolution")
        for heading in ("parameters", *shown):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("left because")
        for row, layer in enumerate(self.layers):
            cells = ("" if cells[row] is None else str(cells[row]) for cells in shown.values())
            table.add_row(layer.name, layer.convolution, _change(layer.parameters, 1e3), *cells, layer.reason or "")
        return table


def _change(numbers: tuple[int, int], unit: float) -> str:
    before, after = (f"{number / unit:,.1f} {'M' if unit == 1e6 else 'K'}" for number in numbers)
    return before if numbers[0] == numbers[1] else f"{before} -> {after}"
