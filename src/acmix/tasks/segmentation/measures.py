"""What a validation of a segmenter finds."""

from acmix.tasks.loop.measures import Measure

# Epochs are ranked by the first, and where they are equal by the next.
MEASURES = (
    Measure(name="val_mean_iou", title="mean IoU", share=True),
    Measure(name="val_loss", title="loss", falling=True),
    Measure(name="val_pixel_accuracy", title="pixel accuracy", share=True),
    Measure(name="val_mean_accuracy", title="mean class accuracy", share=True),
)
