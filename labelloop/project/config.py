"""labelloop.toml: what a person edits."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from labelloop.errors import ProjectError

FILE_NAME = "labelloop.toml"


class ProjectConfig(BaseModel):
    """The settings of a project.

    Attributes:
        name: Shown in reports.
        classes: Names of the object classes; their order gives the class indices. Empty until the first
            labels name them.
        pixel_size_um: Side of a pixel, µm, for images whose files do not say.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    classes: tuple[str, ...] = ()
    pixel_size_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @field_validator("classes")
    @classmethod
    def _named_once(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if any(not name.strip() for name in classes):
            raise ValueError("a class has an empty name")
        if len(set(classes)) != len(classes):
            raise ValueError("a class is named twice")
        return classes


def read_config(path: Path) -> ProjectConfig:
    """Reads labelloop.toml.

    Raises:
        ProjectError: It is missing, is no TOML, or holds something unknown; every fault is named at once.
    """
    try:
        return ProjectConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ProjectError(f"labelloop.toml cannot be read ({error.strerror})", value=path) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProjectError(f"labelloop.toml is not valid TOML ({error})", value=path) from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = ", ".join(ProjectConfig.model_fields)
        raise ProjectError(
            f"labelloop.toml has settings that cannot be used ({faults})",
            value=path,
            way_out=f"Known settings are: {known}.",
        ) from error


def config_text(config: ProjectConfig) -> str:
    """The TOML text of a configuration (JSON strings and lists of strings are valid TOML)."""
    lines = [
        f"name = {json.dumps(config.name, ensure_ascii=False)}",
        f"classes = {json.dumps(list(config.classes), ensure_ascii=False)}",
    ]
    if config.pixel_size_um is not None:
        lines.append(f"pixel_size_um = {config.pixel_size_um}")
    return "\n".join(lines) + "\n"


def write_config(path: Path, config: ProjectConfig) -> None:
    """Replaces labelloop.toml in one step; whoever reads sees the old or the new one."""
    partial = path.with_suffix(".toml.partial")
    partial.write_text(config_text(config), encoding="utf-8")
    partial.replace(path)
