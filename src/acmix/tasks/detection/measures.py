"""What a validation of a detector finds: COCO's average precisions."""

from acmix.tasks.loop.measures import Measure

# Epochs are ranked by the first, and where they are equal by the next.
MEASURES = (
    Measure(name="val_map", title="AP", share=True),
    Measure(name="val_map_50", title="AP50", share=True),
    Measure(name="val_map_75", title="AP75", share=True, optional=True),
    Measure(name="val_mask_map", title="AP of masks", share=True, optional=True),
    Measure(name="val_mask_map_50", title="AP50 of masks", share=True, optional=True),
)
