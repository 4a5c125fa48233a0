"""Predictions written on the pictures that they are of."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from acmix.errors import printable

# Sides in pixels: small pictures are enlarged, pixel by pixel, so that words have room; large ones are shrunk.
_SMALLEST, _LARGEST = 224, 1024
_LINES = 3
_PAPER, _BAR, _INK = "#111827", "#c2410c", "#ffffff"


def drawing(image: Image.Image, scores: Sequence[tuple[str, float]]) -> bytes:
    """A PNG of a picture with its most probable classes below it, each on a bar as long as its probability.

    Args:
        image: In RGB.
        scores: (class, probability), the most probable first; three are shown.
    """
    picture = _sized(image)
    size = max(13, picture.width // 32)
    font, row = ImageFont.load_default(size), size * 8 // 5
    shown = scores[:_LINES]
    whole = Image.new("RGB", (picture.width, picture.height + row * len(shown)), _PAPER)
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for line, (name, probability) in enumerate(shown):
        top = picture.height + row * line
        if length := round(probability * whole.width):
            draw.rectangle((0, top, length - 1, top + row - 2), fill=_BAR)
        share = f" {probability:.1%}"
        room = whole.width - size - draw.textlength(share, font=font)
        words = _cut(draw, font, printable(name), room) + share
        draw.text((size // 2, top + row / 2), words, fill=_INK, font=font, anchor="lm")
    file = io.BytesIO()
    whole.save(file, "PNG")
    return file.getvalue()


def _sized(image: Image.Image) -> Image.Image:
    width, height = image.size
    if max(width, height) > _LARGEST:
        image = image.copy()
        image.thumbnail((_LARGEST, _LARGEST))
        return image
    factor = min(-(-_SMALLEST // min(width, height)), _LARGEST // max(width, height))
    return image.resize((factor * width, factor * height), Image.Resampling.NEAREST) if factor > 1 else image


def _cut(draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str, room: float) -> str:
    """Text that fits into so many pixels."""
    while len(text) > 1 and draw.textlength(text, font=font) > room:
        text = text.removesuffix("…")[:-1] + "…"
    return text
