"""Predictions written on the pictures that they are of."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from acmix.data.images import encode_png
from acmix.pages.lettering import lettered, plain, sized

_MOST = 3
_PAPER, _BAR, _INK = "#111827", "#c2410c", "#ffffff"


def drawing(image: Image.Image, scores: Sequence[tuple[str, float]], *, most: int = _MOST) -> bytes:
    """A PNG of a picture with its most probable classes below it, each on a bar as long as its probability.

    Args:
        image: In RGB.
        scores: (class, probability), the most probable first.
        most: How many are shown.
    """
    picture = sized(image)
    size = max(13, picture.width // 32)
    row = size * 8 // 5
    shown = scores[:most]
    whole = Image.new("RGB", (picture.width, picture.height + row * len(shown)), _PAPER)
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for line, (name, probability) in enumerate(shown):
        top = picture.height + row * line
        if length := round(probability * whole.width):
            draw.rectangle((0, top, length - 1, top + row - 2), fill=_BAR)
        share = plain(f" {probability:.1%}", size)
        room = whole.width - size - share.length
        words = lettered(name, name.encode("ascii", "backslashreplace").decode(), size, room)
        # Apart, since words that are written from right to left would take numbers along.
        words.draw(whole, (size / 2, top + row / 2), _INK)
        share.draw(whole, (size / 2 + words.length, top + row / 2), _INK)
    return encode_png(whole)
