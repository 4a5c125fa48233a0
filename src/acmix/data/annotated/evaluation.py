"""Open the annotated images to evaluate a checkpoint on, never those it was trained on."""

from acmix.data.annotated.finding import find_annotated
from acmix.data.annotated.opening import open_part
from acmix.data.evaluation import DataRecord, Doors, EvaluationImages, find_held_out
from acmix.data.trained import TrainedImages
from acmix.progress import Progress, silent


def find_annotated_evaluation(
    data: str,
    classes: tuple[str, ...],
    record: DataRecord | None,
    trained: TrainedImages | None = None,
    *,
    check_images: bool = True,
    progress: Progress = silent,
) -> EvaluationImages:
    """Open annotated validation images as `acmix.data.find_evaluation` does: without those that were trained on.

    Args:
        data: What `open_annotated` takes.
        classes: The checkpoint's classes.
        record: Its memory of its training data; None where it has none, which is noted.
        trained: Its memory of each image; None leaves out nothing.
        check_images: Decode every file once.
        progress: Shows how far it is.

    Returns:
        Whose images are `AnnotatedImages`.

    Raises:
        InputError: As there.
    """
    doors = Doors(find_annotated, lambda part, _: open_part(part))
    return find_held_out(doors, data, classes, record, trained, check_images=check_images, progress=progress)
