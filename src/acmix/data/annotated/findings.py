"""What reading annotations finds: faults by what follows from them, each with its first examples."""

from dataclasses import dataclass, field

from acmix.data.folders import LeftOut
from acmix.errors import InputError


@dataclass(frozen=True)
class Findings:
    """Faults of annotations, counted by their kind.

    Attributes:
        refused: What training would learn wrongly without a sign of it.
        left_out: Objects and images that are no data.
        noted: What a person may want to know.
    """

    refused: LeftOut = field(default_factory=LeftOut)
    left_out: LeftOut = field(default_factory=LeftOut)
    noted: LeftOut = field(default_factory=LeftOut)

    def check(self, words: str) -> None:
        """Refuse annotations that training would learn wrongly.

        Args:
            words: What they are, for a person.

        Raises:
            InputError: If so; names the first of each kind.
        """
        if self.refused.counts:
            raise InputError(f"{words}: {self.refused}; repair or remove them (acmix data check tells of all)")
