"""labelloop.toml: what a person edits."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from labelloop.errors import ProjectError
from labelloop.whole_files import replacing

FILE_NAME = "labelloop.toml"


class LabelStudioConfig(BaseModel):
    """Where the project's reviews take place. Never a token: that comes from the environment or a keyring.

    Attributes:
        url: Address of the server, with a path where it lies behind one.
        project: Number of the project there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    project: int = Field(ge=1)

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        if not url.isprintable() or " " in url:
            raise ValueError("an address must not have blanks or control characters")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError("an address must begin with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address must not hold a name or a password")
        if parts.query or parts.fragment:
            raise ValueError("an address must end with its path")
        return url.rstrip("/")

    @property
    def server_name(self) -> str:
        """How the ledger names the project on its server."""
        return f"{self.url}#{self.project}"


class ProjectConfig(BaseModel):
    """The settings of a project.

    Attributes:
        name: Shown in reports.
        classes: Names of the object classes; their order gives the class indices. Empty until the first
            labels name them.
        pixel_size_um: Side of a pixel, µm, for images whose files do not say.
        label_studio: Where reviews take place, as ``labelloop connect`` wrote it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    classes: tuple[str, ...] = ()
    pixel_size_um: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    label_studio: LabelStudioConfig | None = None

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
        ProjectError: It is missing, is not TOML, or holds something unknown; every fault is named at once.
    """
    try:
        return ProjectConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ProjectError(
            f"labelloop.toml cannot be read ({error.strerror})", value=path, way_out="Make it readable."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProjectError(
            f"labelloop.toml is not valid TOML ({error})", value=path, way_out="Correct that line."
        ) from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = ", ".join(ProjectConfig.model_fields)
        raise ProjectError(
            f"labelloop.toml has settings that cannot be used ({faults})",
            value=path,
            way_out=f"Known settings are: {known}.",
        ) from error


def config_text(config: ProjectConfig, *, known: str = "") -> str:
    """The TOML text of a configuration.

    Args:
        config: What it says.
        known: The text so far; its comments and order stay.
    """
    document = tomlkit.parse(known)
    _set(document, config.model_dump(mode="json", exclude_none=True))
    return tomlkit.dumps(document)


def _set(table: MutableMapping[str, Any], settings: Mapping[str, Any]) -> None:
    for gone in set(table) - set(settings):
        del table[gone]
    for name, value in settings.items():
        if isinstance(value, dict) and isinstance(table.get(name), MutableMapping):
            _set(table[name], value)
        elif table.get(name) != value:
            table[name] = value


def write_config(path: Path, config: ProjectConfig) -> None:
    """Replaces labelloop.toml in one step; whoever reads sees the old or the new one.

    Raises:
        ProjectError: It is there and cannot be read.
    """
    known = ""
    if path.exists():
        read_config(path)  # says what is wrong with a file that was damaged since
        known = path.read_text(encoding="utf-8")
    with replacing(path) as partial:
        partial.write_text(config_text(config, known=known), encoding="utf-8")
