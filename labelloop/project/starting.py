"""Starting a project from what a person types."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from labelloop.errors import UsageError
from labelloop.paths import plain_path
from labelloop.project.config import ProjectConfig
from labelloop.project.project import Project


def start_project(
    root: Path, *, name: str | None = None, classes: str = "", pixel_size_um: float | None = None
) -> Project:
    """Makes a project.

    Args:
        root: Its folder, new or without a project.
        name: Shown in reports; the folder's name if None.
        classes: Class names between commas; empty to take those of the first labels.
        pixel_size_um: Side of a pixel, µm, for images whose files do not say.

    Raises:
        UsageError: A setting cannot be used; every fault is named.
        ProjectError: There is a project already, or the folder cannot be written.
    """
    try:
        config = ProjectConfig(
            name=plain_path(root).name if name is None else name,
            classes=tuple(part.strip() for part in classes.split(",")) if classes.strip() else (),
            pixel_size_um=pixel_size_um,
        )
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        given = "; ".join(str(e["input"]) for e in error.errors())
        raise UsageError(
            f"the project cannot have these settings ({faults})",
            value=given,
            way_out="Names must not be empty or given twice; a pixel size is a number above 0.",
        ) from error
    return Project.init(root, config)
