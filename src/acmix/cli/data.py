"""The subcommands of `acmix data`."""

from pathlib import Path

from acmix.errors import InputError, check_least


def check(data: str, *, validation: str | None = None, ignore_value: str | None = None, json: bool = False) -> int:
    """Read every image once: what is unreadable, identical, in training and validation, left out; sizes and classes.

    The exit code is 1 if images are unreadable, are in several of training, validation and test, or have two labels; of
    annotated images and of masks also if some would be refused in training or left out.

    Args:
        data: A folder of class folders, of COCO's or YOLO's annotations, of images and masks, of shards, of IDX files
            or of a saved dataset, a pattern of shards, a file of annotations, a CSV file of labels, or digits.
        validation: The same of the validation images, where they are not part of DATA.
        ignore_value: Of masks: the value that says nothing, or the name of the class that does.
        json: Print JSON, which names every image in question.
    """
    from acmix.cli.display import progress

    with progress.working():
        from acmix.data.kinds import kind_of
    kind = kind_of(data)
    if kind == "segmentation":
        return _check_masks(data, validation, ignore_value, json)
    if ignore_value is not None:
        raise InputError(f"--ignore-value is of masks; DATA is of {kind}")
    if kind == "detection":
        return _check_objects(data, validation, json)
    return _check_classes(data, validation, json)


def _check_classes(data: str, validation: str | None, json: bool) -> int:
    from acmix.cli.display import data as display
    from acmix.cli.display import progress

    with progress.working():
        from acmix.data.checking import check_data
        from acmix.data.datasets import open_parts

    parts = open_parts(data, validation=validation, test=True, progress=progress.track)
    named = {"train": parts.train, "validation": parts.validation, "test": parts.test}
    named = {name: images for name, images in named.items() if images is not None}
    report = check_data(named if len(named) > 1 else {"images": parts.train}, progress=progress.track)
    display.show_data_report(parts, report, as_json=json)
    return 0 if report.sound else 1


def _check_objects(data: str, validation: str | None, json: bool) -> int:
    from acmix.cli.display import progress
    from acmix.cli.display.objects import show_annotated_report

    with progress.working():
        from acmix.data.annotated.checking import check_annotated

    report = check_annotated(data, validation=validation, progress=progress.track)
    show_annotated_report(report, as_json=json)
    return 0 if report.sound else 1


def _check_masks(data: str, validation: str | None, ignore_value: str | None, json: bool) -> int:
    from acmix.cli.display import progress
    from acmix.cli.display.masks import show_masked_report

    with progress.working():
        from acmix.data.masks.checking import check_masked

    ignored = int(ignore_value) if ignore_value is not None and ignore_value.isdecimal() else ignore_value
    report = check_masked(data, validation=validation, ignore_value=ignored, progress=progress.track)
    show_masked_report(report, as_json=json)
    return 0 if report.sound else 1


def shard(
    data: str,
    output: Path,
    *,
    validation: str | None = None,
    images_per_shard: int = 1000,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> int:
    """Write images as webdataset shards in random order, their bytes unchanged, with timm's _info.json.

    Args:
        data: As in training.
        output: A new or empty folder.
        validation: Validation images, where they are not part of DATA.
        images_per_shard: Images in a .tar file.
        val_fraction: Share held out where there are no validation images.
        seed: Of the order and of the split, which is that of training.
    """
    from acmix.cli.display import data as display
    from acmix.cli.display import progress

    with progress.working():
        from acmix.data.datasets import open_dataset
        from acmix.data.writing import check_outside, write_shards

    check_least(1, images_per_shard=images_per_shard)
    images = open_dataset(
        data, validation=validation, val_fraction=val_fraction, seed=seed, check_images=False, progress=progress.track
    )
    check_outside(output, images.location)
    parts = {"train": images.train, "validation": images.validation}
    written = write_shards(parts, output, images_per_shard=images_per_shard, seed=seed, progress=progress.track)
    display.show_shards(output, written)
    return 0
