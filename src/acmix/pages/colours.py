"""Colours by what they mean, in a light and a dark scheme."""

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
