"""What a run is given: how many images of how many files in each split, and what is left out."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Contents"]

TITLES = {"train": "to train on", "val": "to validate on", "test": "to test on"}
MOST = 6  # reasons that are named one by one


class Contents(NamedTuple):
    """The numbers of images of a data set.

    Arguments:
        images: By split, how many there are.
        left_out: By reason, how many files are left out.
        notes: What else is to be said.
        unit: What one of them is called: an image, or the row of a table.
    """

    images: Mapping[str, int] = {}
    left_out: Mapping[str, int] = {}
    notes: Sequence[str] = ()
    unit: str = "image"

    def __str__(self) -> str:
        """One line, such as `40 images to train on, ..., 10 to test on; 60 of 120 files, left out: 60 .heic`."""
        words = [f"{n:,} {TITLES.get(split, split)}" for split, n in self.images.items()]
        line = [", ".join(words).replace(" to ", f" {self.unit}s to ", 1)]
        if self.left_out:
            used, lost = sum(self.images.values()), sum(self.left_out.values())
            reasons = [f"{n:,} {reason}" for reason, n in self.left_out.items()]
            more = [] if len(reasons) <= MOST else [f"{sum([*self.left_out.values()][MOST:]):,} others"]
            line.append(f"{used:,} of {used + lost:,} files, left out: {', '.join([*reasons[:MOST], *more])}")
        return "; ".join([*line, *self.notes])

    def as_dict(self) -> dict[str, Any]:
        """For `run.json`."""
        return self._asdict() | {
            "images": dict(self.images),
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }
