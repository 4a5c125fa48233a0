"""Images of any mode as 8-bit RGB, and the check that every file can be read."""

import io
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from acmix.errors import InputError

# What Pillow's decoders raise on a broken file; anything else is our bug.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_NAMED = 3


def read_image(path: str | Path) -> Image.Image:
    """Read an image file as 8-bit RGB, the way a viewer shows it.

    The EXIF orientation is applied, transparency is laid on white, 16-bit greys are scaled to 8 bits.

    Raises:
        InputError: If the file is missing or is not an image that Pillow can decode.
    """
    return decode_image(read_bytes(path), path)


def read_bytes(path: str | Path) -> bytes:
    """The content of an image file.

    Raises:
        InputError: If the file is missing or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected an image file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def decode_image(content: bytes, name: str | Path) -> Image.Image:
    """Decode the bytes of an image file as `read_image` does.

    Args:
        content: The bytes of the file.
        name: What to call the image in an error.

    Raises:
        InputError: If it is not an image that Pillow can decode.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _to_rgb(ImageOps.exif_transpose(image))
    except _BROKEN as error:
        raise InputError(f"{name}: not a readable image ({_first_line(error)})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        # Pillow opens some 16-bit greys as 32-bit integers; only values beyond 8 bits are scaled down.
        values = np.asarray(image, dtype=np.float64)
        scale = 257 if values.max(initial=0) > 255 else 1
        return Image.fromarray((values / scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def check_images(paths: Sequence[Path], *, progress: bool = False) -> None:
    """Decode every file once, in threads.

    Args:
        paths: The image files.
        progress: Show a progress bar on stderr.

    Raises:
        InputError: If files cannot be read; names the first few and says how many there are.
    """
    with ThreadPoolExecutor() as pool:
        faults = [
            fault
            for fault in track(
                pool.map(_fault, paths),
                description="Checking images",
                total=len(paths),
                console=Console(stderr=True),
                transient=True,
                disable=not progress,
            )
            if fault is not None
        ]
    if faults:
        named = "; ".join(faults[:_NAMED]) + ("; ..." if len(faults) > _NAMED else "")
        raise InputError(
            f"{len(faults)} of {len(paths)} images cannot be read: {named}; repair or remove them, "
            "or skip this check with --check-images false"
        )


def _fault(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            # JPEG decodes at an eighth of its size and still reads the whole file.
            image.draft(None, (1, 1))
            image.load()
    except _BROKEN as error:
        return f"{path} ({_first_line(error)})"
    return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
