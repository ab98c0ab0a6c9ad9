"""A process that shares a prediction: ``python -m labelloop.predict.taking_part PROJECT RUN DEVICE``.

``predict --devices N`` starts N - 1 of them. The process that has started them speaks for all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from labelloop.errors import LabelloopError, TeamError
from labelloop.interrupts import stops_interrupt
from labelloop.predict.sharing import help_predict
from labelloop.processes import take_part
from labelloop.project.project import Project
from labelloop.runs.loading import choose_device, load_model


def main(arguments: Sequence[str]) -> int:
    """Takes part in a prediction; its exit code. The leader is told the reason of a failure."""
    project, device = Project.open(Path(arguments[0])), choose_device(arguments[2])
    try:
        with stops_interrupt(), take_part(device_type=device.type) as team:
            loaded = load_model(project, arguments[1], device=str(team.device(device)))
            help_predict(loaded.model, loaded.stats, team)
    except (TeamError, KeyboardInterrupt):
        return 0  # the leader says why
    except LabelloopError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
