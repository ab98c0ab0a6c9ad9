"""What labelloop's catalogue knows of detectron2's models."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

from labelloop.errors import ModelError
from labelloop.models.architecture import Architecture
from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import InstanceModel

# detectron2 has no release that works with today's PyTorch; this state of its repository does. Without
# --no-build-isolation its build does not find the installed PyTorch.
INSTALL = "pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2@02b5c4e2'"
# What detectron2 imports, and the distributions that bring it; labelloop[detectron2] names the same.
SATELLITES = {
    "fvcore": "fvcore",
    "iopath": "iopath",
    "omegaconf": "omegaconf",
    "hydra": "hydra-core",
    "yacs": "yacs",
    "tabulate": "tabulate",
    "termcolor": "termcolor",
    "cloudpickle": "cloudpickle",
    "yaml": "pyyaml",
}
TARGET_DIAMETER_PX = 64.0  # of the median object in the network's input, as for mask-rcnn-r50
INPUT_SIDE_PX = 768


def missing() -> str:
    """What it takes to build one here, in words; empty where nothing is missing."""
    spec = find_spec("detectron2")
    if spec is None or spec.origin is None:  # a folder of this name, as a clone has it, is not yet a package
        return f"detectron2 is not installed: {INSTALL} (takes git, a C++ compiler and some minutes)"
    lacking = [package for name, package in SATELLITES.items() if find_spec(name) is None]
    return f"detectron2 needs more packages: pip install {' '.join(lacking)}" if lacking else ""


def note() -> str:
    """Whether detectron2 has its C extension, which few configurations need."""
    spec = find_spec("detectron2")
    places = spec.submodule_search_locations if spec is not None else None
    if any(found for place in places or () for found in Path(place).glob("_C.*")):
        return "detectron2 has its C extension"
    return f"detectron2 has no C extension; only deformable convolutions need it: {INSTALL}"


def build(stats: DataStats, *, variant: str | None, pretrained: bool) -> InstanceModel:
    """See BuildsModel; the variant is a configuration."""
    lacking = missing()
    if lacking:
        raise ModelError("this model cannot be built here", value="detectron2", way_out=lacking)
    if not variant:
        raise ModelError(
            "detectron2 needs a configuration",
            value="--model detectron2",
            way_out="Name a yaml file, or detectron2:COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it still scripts functions, which PyTorch deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            from labelloop.integrations.detectron2.model import build_detectron2
        except (
            ImportError,
            AttributeError,
        ) as error:  # the release of 2021 does not import with today's Pillow
            raise ModelError(
                f"detectron2 cannot be imported ({error})",
                value="detectron2",
                way_out=f"This state of it works: {INSTALL}",
            ) from error
        return build_detectron2(variant, stats, target_diameter_px=TARGET_DIAMETER_PX, pretrained=pretrained)


def training_view_px(stats: DataStats) -> int:
    """See Architecture."""
    from labelloop.models.inputs import input_scale

    return max(round(INPUT_SIDE_PX / input_scale(stats, target_diameter_px=TARGET_DIAMETER_PX)), 32)


ARCHITECTURE = Architecture(
    name="detectron2",
    description="any Mask R-CNN of detectron2: detectron2:CONFIG, a yaml file or a name of its zoo",
    parameters_m=None,
    weights="MODEL.WEIGHTS of the configuration: a file, detectron2's hub, or none",
    licence="Apache-2.0; of weights, as their source says",
    build=build,
    training_view_px=training_view_px,
    variant="a yaml file, or a name of detectron2's zoo",
    missing=missing,
    note=note,
)
