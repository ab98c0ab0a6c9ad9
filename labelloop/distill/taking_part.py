"""A process that shares a training: ``python -m labelloop.distill.taking_part PROJECT cpu|cuda [RUN]``.

``train --devices N`` starts N - 1 of them; without RUN they help to measure what a step costs. The process
that has started them writes, and speaks, for all.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from labelloop.distill.execution import execute
from labelloop.distill.measuring import help_measure
from labelloop.errors import LabelloopError, TeamError
from labelloop.interrupts import stops_interrupt
from labelloop.processes import take_part
from labelloop.progress import Silent
from labelloop.project.project import Project


def main(arguments: Sequence[str]) -> int:
    """Takes part in a run; its exit code. The leader is told the reason of a failure."""
    project, names = Project.open(Path(arguments[0])), arguments[2:]
    try:
        with stops_interrupt(), take_part(device_type=arguments[1]) as team:
            if names:
                execute(project, project.run(names[0]), Silent(), team)
            else:
                help_measure(project, team)
    except (TeamError, KeyboardInterrupt):
        return 0  # the leader says why
    except LabelloopError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
