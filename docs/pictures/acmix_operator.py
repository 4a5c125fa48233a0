"""Draw operator.svg, the picture of README.md: one input, three projections, two paths, two rates, one sum.

Run: python docs/pictures/acmix_operator.py
"""

from html import escape
from pathlib import Path

from acmix.pages import theme

# A module called operator would hide Python's own from what runs beside it.
PICTURE = Path(__file__).with_name("operator.svg")
TITLE = "The ACmix operator"
WHAT = (
    "Three 1x1 projections q, k and v of the input serve two paths. Attention: q is compared with k in a 7 x 7 window, "
    "and v is averaged. Convolution: a fully connected layer fc mixes q, k and v into 9 maps, shifted and summed. The "
    "output is the attention path times alpha plus the convolution path times beta; both rates are learned."
)
MIDDLE = 140
PROJECTIONS = {"q": 80, "k": MIDDLE, "v": 200}
# Of each path: its row, colour, rate, name, what it does.
PATHS = (
    (
        72,
        "orange",
        "\N{GREEK SMALL LETTER ALPHA}",
        "attention",
        ("q looks at k in a", "7 x 7 window and", "averages v"),
    ),
    (
        208,
        "blue",
        "\N{GREEK SMALL LETTER BETA}",
        "convolution",
        ("fc mixes q, k, v", "to 9 maps, shifted", "and summed"),
    ),
)
CLASSES = (
    *("fill-paper", "fill-panel", "fill-ink", "fill-quiet", "fill-orange", "fill-blue", "fill-rule"),
    *("stroke-rule", "stroke-orange", "stroke-blue"),
)


def box(x: float, y: float, width: float, height: float, kind: str, *, radius: float = 6, opacity: float = 1) -> str:
    """A rounded box."""
    more = f' opacity="{opacity:.2f}"' if opacity < 1 else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class="{kind}"{more}/>'


def text(x: float, y: float, words: str, kind: str = "", *, colour: str = "ink") -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="fill-{colour} {kind}">{escape(words)}</text>'


def line(points: str, *, colour: str = "rule", arrow: bool = False) -> str:
    """A line along a path, with a tip at its end if it is an arrow."""
    tip = f' marker-end="url(#tip-{colour})"' if arrow else ""
    return f'<path d="{points}" class="stroke-{colour}" fill="none" stroke-width="1.5"{tip}/>'


def tip(colour: str) -> str:
    """What arrows of a colour end in."""
    size = 'markerWidth="7" markerHeight="8" refX="6" refY="4" orient="auto" markerUnits="userSpaceOnUse"'
    return f'<marker id="tip-{colour}" {size}><path d="M0 0 L7 4 L0 8z" class="fill-{colour}"/></marker>'


def cells(x: float, y: float, count: int, side: float, kind: str, shade: list[float]) -> list[str]:
    """A square map of cells, row by row, each as strong as its shade."""
    return [
        box(
            x + side * column,
            y + side * row,
            side - 1.5,
            side - 1.5,
            kind,
            radius=1.5,
            opacity=shade[count * row + column],
        )
        for row in range(count)
        for column in range(count)
    ]


def window() -> list[str]:
    """What a query attends to: more of some cells than of others, its own outlined."""
    weights = [1 / (1 + 0.28 * ((row - 2) ** 2 + (column - 4) ** 2)) for row in range(7) for column in range(7)]
    parts = cells(202, 37, 7, 10, "fill-orange", [0.12 + 0.88 * weight for weight in weights])
    return [
        *parts,
        '<rect x="231" y="66" width="10.5" height="10.5" rx="2" class="stroke-orange fill-paper" stroke-width="2"/>',
    ]


def shifts() -> list[str]:
    """Nine maps, each with the way that it is shifted."""
    parts = []
    for row in range(3):
        for column in range(3):
            x, y = 202 + 24 * column, 173 + 24 * row
            parts.append(box(x, y, 21, 21, "fill-blue", radius=3, opacity=0.22))
            across, down = 6 * (column - 1), 6 * (row - 1)
            middle = f"M{x + 10.5 - across:g} {y + 10.5 - down:g} L{x + 10.5 + across:g} {y + 10.5 + down:g}"
            centre = f'<circle cx="{x + 10.5}" cy="{y + 10.5}" r="3" class="fill-blue"/>'
            parts.append(line(middle, colour="blue", arrow=True) if across or down else centre)
    return parts


def path(row: float, colour: str, rate: str, name: str, what: tuple[str, ...]) -> list[str]:
    """A path from the projections to its rate and on to the sum."""
    parts = [line(f"M164 {row} H188", arrow=True), box(190, row - 50, 238, 100, "fill-panel")]
    parts.append(text(286, row - 24, name, "name", colour=colour))
    parts += [text(286, row - 2 + 18 * number, words, "small") for number, words in enumerate(what)]
    parts += [line(f"M428 {row} H444", colour=colour, arrow=True)]
    parts.append(f'<circle cx="462" cy="{row}" r="16" class="fill-{colour}"/>')
    parts.append(text(462, row + 6, rate, "middle rate", colour="paper"))
    end = MIDDLE - 16 if row < MIDDLE else MIDDLE + 16
    return [
        *parts,
        line(f"M478 {row} H508 Q514 {row} 514 {row + (6 if row < MIDDLE else -6)} V{end}", colour=colour, arrow=True),
    ]


def body() -> list[str]:
    """From the input to the output."""
    parts = cells(14, MIDDLE - 27, 5, 11, "fill-rule", [0.3 + 0.7 * ((7 * number) % 5) / 4 for number in range(25)])
    parts += [text(41, MIDDLE + 46, "input", "middle small", colour="quiet")]
    parts += [
        text(122, 26, "three 1 x 1", "middle small", colour="quiet"),
        text(122, 42, "projections", "middle small", colour="quiet"),
    ]
    for name, y in PROJECTIONS.items():
        parts.append(line(f"M71 {MIDDLE} C88 {MIDDLE} 78 {y} 98 {y}", arrow=True))
        parts += [box(100, y - 18, 44, 36, "fill-panel"), text(122, y + 6, name, "middle name")]
        parts.append(line(f"M144 {y} H164"))
    parts.append(line("M164 72 V208"))
    for each in PATHS:
        parts += path(*each)
    parts += [*window(), *shifts()]
    parts += [
        text(462, 134, "learned", "middle small", colour="quiet"),
        text(462, 151, "rates", "middle small", colour="quiet"),
    ]
    parts.append(f'<circle cx="514" cy="{MIDDLE}" r="13" class="fill-paper stroke-rule" stroke-width="1.5"/>')
    parts += [line(f"M507 {MIDDLE} h14 M514 {MIDDLE - 7} v14"), line(f"M527 {MIDDLE} H541", arrow=True)]
    shades = [0.3 + 0.7 * ((3 * number + 2) % 7) / 6 for number in range(25)]
    return [
        *parts,
        *cells(543, MIDDLE - 27, 5, 11, "fill-rule", shades),
        text(570, MIDDLE + 46, "output", "middle small", colour="quiet"),
    ]


def draw() -> str:
    """The whole picture as SVG."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 612 280" role="img" aria-labelledby="title what">'
    words = f'<title id="title">{escape(TITLE)}</title><desc id="what">{escape(WHAT)}</desc>'
    style = f"text {{ font: 15px {theme.FONT} }} .small {{ font-size: 13.5px }} .name {{ font-weight: 600 }}\n"
    style += f".middle {{ text-anchor: middle }} .rate {{ font-size: 19px }}\n{theme.literal(CLASSES)}"
    tips = "".join(map(tip, ("rule", "orange", "blue")))
    paper = '<rect width="100%" height="100%" rx="8" class="fill-paper"/>'
    parts = [f"<style>\n{style}\n</style>", f"<defs>{tips}</defs>", paper, *body()]
    return "\n".join([head, words, *parts, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(draw())
