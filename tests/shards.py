"""Small shards for tests."""

import io
import tarfile

from PIL import Image


def png(red=0):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members):
    """Write members, (name, bytes) or a TarInfo, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shard(path, labels, first=0):
    """Write images with .cls labels; the red of an image is its number."""
    members = []
    for number, label in enumerate(labels, first):
        members += [(f"{number:04d}.png", png(number)), (f"{number:04d}.cls", str(label).encode())]
    return write_tar(path, members)


def write_three(folder):
    """Three shards of 3, 2 and 4 images of three classes; returns the pattern that names them."""
    write_shard(folder / "train-0.tar", [0, 1, 2])
    write_shard(folder / "train-1.tar", [1, 1], 3)
    write_shard(folder / "train-2.tar", [2, 0, 0, 1], 5)
    return str(folder / "train-{0..2}.tar")
