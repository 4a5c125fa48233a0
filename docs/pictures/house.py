"""Draw house.svg, the picture of DESIGN.md: layers, and the way of a call from the layer to a kernel.

Run: python docs/pictures/house.py
"""

from html import escape
from pathlib import Path

PICTURE = Path(__file__).with_suffix(".svg")
LAYERS = (
    ("6", "acmix, cli", "public names; typed functions become commands"),
    ("5", "pages", "what layer 4 returns, as pictures and pages"),
    ("4", "tasks, study, explain, bench, export, integrations", "train, compare, look inside, measure, take elsewhere"),
    ("3", "models, checkpoints, surgery, data, accounting", "networks, weights, images, costs"),
    ("2", "nn, paths", "ACmix: parameters and initialisation; what the family shares"),
    ("1", "ops", "the operator as functions of tensors; backends"),
    ("0", "errors, storage, records, plain, conv2d, progress, devices, shell", "leaves"),
)
# Of every step: what it is called, what it does.
WAY = (
    ("ACmix.forward(x)", "hands on Projection, Weights and Grid"),
    ("ops.dispatch", "validation: is it right?  select: why_not, who can?"),
)
BACKENDS = (
    ("cpu", ("derivatives.Operator", "acmix::project_and_mix", "csrc: all stages", "in bands of rows")),
    ("triton", ("projection by torch", "cuDNN: one kernel (E4)", "acmix_triton::attend", "adds both paths")),
    ("portable", ("1x1 convolution", "algebra on tiles", "scaled_dot_product_", "attention")),
    ("reference", ("1x1 convolution", "the equations", "window by window", "in float64")),
)
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1d2733 } .name { font-weight: 600 } .small { font-size: 11.5px }
  rect { fill: #eef3f8; stroke: #5b7083 } #tip path { fill: #5b7083 }
  path { stroke: #5b7083; fill: none; marker-end: url(#tip) }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } rect { fill: #1c2733; stroke: #8ba3b8 } path { stroke: #8ba3b8 } #tip path { fill: #8ba3b8 }
  }"""


def box(x: int, y: int, width: int, height: int) -> str:
    """A rounded box."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'


def text(x: int, y: int, words: str, kind: str = "") -> str:
    """A line of text."""
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>'


def arrow(x: int, y: int, to_x: int, to_y: int) -> str:
    """An arrow between two points."""
    return f'<path d="M{x} {y} L{to_x} {to_y}"/>'


def layers() -> list[str]:
    """The left half: a row a layer, imports go down."""
    parts = [text(20, 28, "Layers: imports go down", "name")]
    for row, (number, names, what) in enumerate(LAYERS):
        y = 44 + 58 * row
        parts += [box(20, y, 530, 48), text(32, y + 29, number, "name")]
        parts += [text(56, y + 20, names, "name"), text(56, y + 38, what, "small")]
    return parts


def way() -> list[str]:
    """The right half: a call, from the layer to what computes."""
    parts = [text(510, 28, "A call's way", "name")]
    for row, (name, what) in enumerate(WAY):
        y = 44 + 78 * row
        parts += [box(510, y, 650, 48), text(522, y + 20, name, "name"), text(522, y + 38, what, "small")]
        parts.append(arrow(835, y + 48, 835, y + 74) if row + 1 < len(WAY) else "")
    for column, (name, lines) in enumerate(BACKENDS):
        x = 510 + 165 * column
        parts += [arrow(x + 77, 170, x + 77, 208), box(x, 212, 155, 128), text(x + 10, 234, name, "name")]
        parts += [text(x + 10, 258 + 20 * row, line, "small") for row, line in enumerate(lines)]
    notes = (
        "A backend takes checked values whole (contract.Backend) and imports no other.",
        '"auto" takes the first of cpu, triton, portable that can; a name never falls back.',
        "Derivatives: kernels have one, in reverse; all others are the algebra's (derivatives.py).",
    )
    return parts + [text(510, 372 + 24 * row, note, "small") for row, note in enumerate(notes)]


def draw() -> str:
    """The whole picture as SVG."""
    title = (
        "Seven layers of acmix, and the way of a call from ACmix.forward through validation and dispatch to a backend"
    )
    size = 'markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto"'
    tip = f'<marker id="tip" {size}><path d="M0 0 L6 3 L0 6z"/></marker>'
    area = 'width="1250" height="460" viewBox="0 0 1250 460"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {area} role="img"><title>{escape(title)}</title>'
    body = "\n".join(filter(None, [*layers(), '<g transform="translate(70)">', *way(), "</g>"]))
    return f"{head}\n<style>{STYLE}\n</style>\n<defs>{tip}</defs>\n{body}\n</svg>\n"


if __name__ == "__main__":
    PICTURE.write_text(draw())
