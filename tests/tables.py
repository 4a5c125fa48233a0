"""Images and tables of labels for tests."""

from PIL import Image


def write_table(file, text, images=(), folder=None, encoding="utf-8"):
    """Write a table and small images, each of a colour of its own."""
    folder = file.parent if folder is None else folder
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
    for index, name in enumerate(images):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (index * 7 % 256, index // 36, 60)).save(path)
    return file


def multi_label(folder, count=24, size=32):
    """A folder with labels.csv of images whose red, green and blue parts are their labels; every eighth has none."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["image,labels"]
    for index in range(count):
        bits = [index >> place & 1 for place in range(3)]
        Image.new("RGB", (size, size), tuple(index // 8 + 200 * bit for bit in bits)).save(folder / f"{index}.png")
        names = [name for name, bit in zip(("red", "green", "blue"), bits, strict=True) if bit]
        rows.append(f"{index}.png,{';'.join(names)}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder
