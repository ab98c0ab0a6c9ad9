"""The models that can be trained, by name.

There are those of this package, those that installed packages offer as entry points of the group
``labelloop.architectures`` (labelloop's own integrations among them), and any Python file that holds an
``ARCHITECTURE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from labelloop.errors import ModelError, UsageError
from labelloop.models.architecture import Architecture
from labelloop.models.data_stats import DataStats
from labelloop.models.mask2former_sizes import (
    mask2former_dinov2_b,
    mask2former_dinov2_l,
    mask2former_lite,
    mask2former_r50,
    mask2former_swin_b,
    mask2former_swin_l,
    mask2former_swin_t,
)
from labelloop.models.mask_rcnn_sizes import mask_rcnn_lite, mask_rcnn_r50
from labelloop.models.protocol import InstanceModel
from labelloop.models.torchvision_mask_rcnn import torchvision_r50, torchvision_r50_v2

ENTRY_POINTS = "labelloop.architectures"
IN_A_FILE = "ARCHITECTURE"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """One row of ``labelloop models``.

    Attributes:
        name: What ``--model`` takes.
        description: One line.
        parameters_m: Millions of parameters, for one class; None where they depend on what follows the name.
        weights: Where the pretrained weights come from.
        licence: Licence of the weights.
        available: Whether it can be built here now.
        note: What is missing, if anything.
    """

    name: str
    description: str
    parameters_m: float | None
    weights: str
    licence: str
    available: bool
    note: str = ""


def build_model(name: str, stats: DataStats, *, pretrained: bool = True) -> InstanceModel:
    """A fresh model for such data.

    Args:
        name: A name of ``list_models``, perhaps with a variant after a colon (``mask-rcnn-r50:FILE`` takes
            the backbone's weights from a file), or a Python file that holds an ``ARCHITECTURE``.
        stats: Of the labelled images.
        pretrained: False leaves the weights random, for a model whose weights are loaded next.

    Raises:
        UsageError: There is no such model.
        ModelError: Its weights cannot be found or downloaded.
    """
    architecture, variant = find_architecture(name)
    return architecture.build(stats, variant=variant, pretrained=pretrained)


def training_view_px(name: str, stats: DataStats) -> int:
    """Side of the crops that a model is trained on, image px: larger images are never seen whole.

    Raises:
        UsageError: There is no such model.
    """
    architecture, _ = find_architecture(name)
    return architecture.training_view_px(stats)


def list_models() -> list[ModelInfo]:
    """Everything ``--model`` takes by name."""
    return [*(_info(architecture) for architecture in _own()), *list_offered()]


def list_offered() -> list[ModelInfo]:
    """Those that are not labelloop's own: their packages, or what these need, may be missing."""
    rows = []
    for point in _offered():
        try:
            rows.append(_info(_loaded(point)))
        except ModelError as error:
            rows.append(_unusable(point, error))
    return rows


def find_architecture(name: str) -> tuple[Architecture, str | None]:
    """The architecture of this name, and what follows the colon.

    Raises:
        UsageError: There is none, or it takes nothing after a colon.
        ModelError: A package offers it and cannot be imported.
    """
    if name.endswith(".py"):
        return _in_file(Path(name)), None
    kind, _, variant = name.partition(":")
    own = {architecture.name: architecture for architecture in _own()}
    offered = {point.name: point for point in _offered()}
    if kind in own:
        found = own[kind]
    elif kind in offered:
        found = _loaded(offered[kind])
    else:
        names = ", ".join([*own, *offered])
        raise UsageError("there is no such model", value=name, way_out=f"Models are: {names}; or a .py file.")
    if variant and not found.variant:
        raise UsageError("this model takes nothing after a colon", value=name, way_out=f"Use {kind}.")
    return found, variant or None


def canonical_name(name: str) -> str:
    """The name as it is kept with a run: a file's is absolute, so that it is found from any folder."""
    if name.endswith(".py"):
        return str(Path(name).resolve())
    kind, _, variant = name.partition(":")
    return f"{kind}:{Path(variant).resolve()}" if variant and Path(variant).exists() else name


def _own() -> tuple[Architecture, ...]:
    return (
        mask_rcnn_lite(),
        mask_rcnn_r50(),
        torchvision_r50(),
        torchvision_r50_v2(),
        mask2former_lite(),
        mask2former_r50(),
        mask2former_swin_t(),
        mask2former_swin_b(),
        mask2former_swin_l(),
        mask2former_dinov2_b(),
        mask2former_dinov2_l(),
    )


def _offered() -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name))


def _loaded(point: EntryPoint) -> Architecture:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"this model cannot be imported ({error})",
            value=point.value,
            way_out="Fix or uninstall the package that offers it.",
        ) from error
    return _checked(found, point.value)


def _in_file(path: Path) -> Architecture:
    if not path.is_file():
        raise UsageError("there is no such file", value=path, way_out="labelloop models lists what there is.")
    spec = spec_from_file_location(f"labelloop_architecture_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise ModelError(
            f"this file cannot be imported ({error})",
            value=path,
            way_out="Fix it, or install what it imports beside labelloop.",
        ) from error
    return _checked(getattr(module, IN_A_FILE, None), path)


def _checked(found: object, where: object) -> Architecture:
    if not isinstance(found, Architecture):
        raise ModelError(
            "this is not a labelloop.models.architecture.Architecture",
            value=where,
            way_out=f"A file gives its own as {IN_A_FILE}; docs/extending.md shows one.",
        )
    return found


def _info(architecture: Architecture) -> ModelInfo:
    missing = architecture.missing()
    return ModelInfo(
        name=architecture.name,
        description=architecture.description,
        parameters_m=architecture.parameters_m,
        weights=architecture.weights,
        licence=architecture.licence,
        available=not missing,
        note=missing or architecture.note(),
    )


def _unusable(point: EntryPoint, error: ModelError) -> ModelInfo:
    return ModelInfo(
        name=point.name,
        description="",
        parameters_m=None,
        weights="",
        licence="",
        available=False,
        note=str(error),
    )
