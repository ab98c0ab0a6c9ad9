"""Every error labelloop raises on purpose.

    LabelloopError
    ├── UsageError            a request that contradicts itself or names something unknown
    ├── ProjectError          no project, a broken labelloop.toml, a ledger that cannot be used
    │   └── NothingToReviewError
    ├── ImageError            a file that cannot be used as an image
    │   └── ChangedImageError
    ├── FormatError           an annotation file that cannot be read
    ├── ModelError            a model that cannot be built, loaded or fitted to the data
    ├── TrainingError         training that cannot start or go on
    │   └── NonFiniteLossError
    ├── TeamError             another of the processes that share the work has ended
    ├── OutputError           a result that cannot be written
    └── ServerError           an annotation server that cannot be reached, or refuses

A message says what happened, the value that was given, and the way out. The command line prints it as one
line and exits with 1; anything else that is raised is a bug and keeps its traceback.
"""


class LabelloopError(Exception):
    """Base of all errors that a user can act on.

    Args:
        what: What happened, one sentence without a full stop.
        value: The value that was given, as the user knows it; empty if there is none.
        way_out: What to do about it, one sentence; empty if nothing can be done.
    """

    def __init__(self, what: str, *, value: object = "", way_out: str = "") -> None:
        self.what = what
        self.value = str(value)
        self.way_out = way_out
        super().__init__(what)

    def __str__(self) -> str:
        value = f": {self.value}" if self.value else ""
        way_out = f". {self.way_out}" if self.way_out else ""
        return f"{self.what}{value}{way_out}"

    def as_dict(self) -> dict[str, str]:
        """The three parts, as ``--json`` prints them."""
        return {"what": self.what, "value": self.value, "way_out": self.way_out}


class UsageError(LabelloopError):
    """A request that contradicts itself or names something unknown."""


class ProjectError(LabelloopError):
    """There is no project here, or its files cannot be used."""


class NothingToReviewError(ProjectError):
    """Every image of the pool has labels or was sent for review."""


class ImageError(LabelloopError):
    """A file cannot be used as an image."""


class ChangedImageError(ImageError):
    """A file holds something else than when it was added to the project."""


class FormatError(LabelloopError):
    """An annotation file cannot be read."""


class ModelError(LabelloopError):
    """A model cannot be built, loaded or fitted to the data."""


class TrainingError(LabelloopError):
    """Training cannot start or go on."""


class NonFiniteLossError(TrainingError):
    """A loss or its gradient is NaN or infinite; raised before the optimiser step, naming the images."""


class TeamError(LabelloopError):
    """Another of the processes that share the work has ended."""


class OutputError(LabelloopError):
    """A result cannot be written."""


class ServerError(LabelloopError):
    """An annotation server cannot be reached, or refuses."""
