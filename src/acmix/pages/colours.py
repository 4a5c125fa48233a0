"""Colours by what they mean, in a light and a dark scheme."""

import colorsys

# Of every meaning: in the light scheme, in the dark one. Words are `ink` or `quiet` on `paper` or `panel`.
COLOURS = {
    "paper": ("#ffffff", "#161412"),
    "panel": ("#f5f5f4", "#262320"),
    "ink": ("#1c1917", "#ece9e6"),
    "quiet": ("#57534e", "#b5afa9"),
    "rule": ("#8c857e", "#7d766f"),
    "grid": ("#d6d3d1", "#46413c"),
    "blue": ("#1d4ed8", "#7aa9ff"),
    "orange": ("#c2410c", "#fb923c"),
    "green": ("#15803d", "#4ade80"),
    "pink": ("#be185d", "#f472b6"),
    "violet": ("#7e22ce", "#c799ff"),
    "teal": ("#0f766e", "#2dd4bf"),
    "ochre": ("#854d0e", "#facc15"),
    "red": ("#b91c1c", "#f87171"),
}
# Of things that have no order: names of COLOURS.
HUES = ("blue", "orange", "green", "pink", "violet", "teal", "ochre", "red")
# From one hue to the next beyond those, as a share of the circle: the golden section meets none twice.
_STEP = 0.618034


def class_colour(label: int) -> str:
    """A bright colour of a class, for pictures; those of its neighbours are far from it."""
    if label < len(HUES):
        return COLOURS[HUES[label]][1]
    hue, brightness = (label * _STEP) % 1, (1.0, 0.8, 0.9)[label % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.55, brightness))
    return f"#{red:02x}{green:02x}{blue:02x}"
