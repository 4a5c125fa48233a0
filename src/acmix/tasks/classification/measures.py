"""What a validation of a classifier finds."""

from acmix.tasks.loop.measures import Measure

# Epochs are ranked by the first, and where they are equal by the next.
MEASURES = (
    Measure(name="val_top1", title="top-1", share=True),
    Measure(name="val_loss", title="loss", falling=True),
    Measure(name="val_top5", title="top-5", share=True, optional=True),
)
# Of images with any number of labels: macro averages over classes, F1 at 0.5.
MULTI_LABEL_MEASURES = (
    Measure(name="val_map", title="mAP", share=True),
    Measure(name="val_loss", title="loss", falling=True),
    Measure(name="val_f1", title="F1", share=True),
    Measure(name="val_f1_micro", title="F1 micro", share=True, optional=True),
)
