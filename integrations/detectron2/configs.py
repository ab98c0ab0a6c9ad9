"""Configurations of detectron2, fitted to the data."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from detectron2.config import CfgNode, get_cfg

from labelloop.errors import ModelError
from labelloop.models.data_stats import DataStats
from labelloop.models.mask_rcnn import MaskRCNNConfig, fit_to
from labelloop.models.roi_heads import HeadConfig

LEVELS_FITTED = 5  # fit_to counts the proposals of each of so many levels
LEAST_DETECTIONS = 300


def config_file(name: str) -> Path:
    """The file of a configuration.

    Args:
        name: A yaml file, or a name of detectron2's zoo with or without ``.yaml``.

    Raises:
        ModelError: There is none.
    """
    # Found without detectron2.model_zoo, whose import needs pkg_resources, which setuptools no longer has.
    zoo = Path(str(files("detectron2"))) / "model_zoo" / "configs"
    for path in (Path(name), zoo / name, zoo / f"{name}.yaml"):
        if path.is_file() and path.suffix in {".yaml", ".yml"}:
            return path
    way_out = "Give a yaml file, or a name such as COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x."
    if not zoo.is_dir():
        way_out = f"Give a yaml file; this detectron2 came without its zoo ({zoo})."
    raise ModelError("detectron2 has no such configuration", value=name, way_out=way_out)


_NO_CONFIG = (  # what yacs and fvcore raise of files that are none, empty ones and lists too
    KeyError, ValueError, AssertionError, OSError, yaml.YAMLError, TypeError, AttributeError,
)  # fmt: skip


def read_config(path: Path) -> Any:
    """A configuration as its file says; nothing in the file is executed.

    Raises:
        ModelError: It cannot be read, or is not a Mask R-CNN.
    """
    cfg = get_cfg()
    try:
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except _NO_CONFIG as error:
        raise ModelError(
            f"this is not a configuration of detectron2 ({' '.join(str(error).split())})",
            value=path,
            way_out="Give a yaml file such as those of detectron2's model zoo.",
        ) from error
    model = cfg.MODEL
    for key, found, wanted in (
        ("MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, "GeneralizedRCNN"),
        ("MODEL.MASK_ON", model.MASK_ON, True),
        ("MODEL.PROPOSAL_GENERATOR.NAME", model.PROPOSAL_GENERATOR.NAME, "RPN"),
        ("MODEL.LOAD_PROPOSALS", model.LOAD_PROPOSALS, False),
    ):
        if found != wanted:
            raise ModelError(
                f"this configuration is not a Mask R-CNN: its {key} is {found}",
                value=path,
                way_out=f"labelloop takes those where it is {wanted}.",
            )
    if cfg.INPUT.FORMAT not in {"BGR", "RGB"}:
        raise ModelError(
            "this configuration does not take colour images",
            value=f"INPUT.FORMAT {cfg.INPUT.FORMAT}",
            way_out="Make it BGR or RGB.",
        )
    return cfg


def weights_of(cfg: CfgNode, path: Path) -> str:
    """Where a configuration's weights are: a file, an address, or empty for random ones.

    Raises:
        ModelError: It names a file that is not there.
    """
    named = str(cfg.MODEL.WEIGHTS)
    if not named or "://" in named:
        return named
    for place in (path.parent / named, Path(named)):
        if place.is_file():
            return str(place.resolve())
    raise ModelError(
        "the weights that the configuration names are not there",
        value=named,
        way_out=f"Put them there, or change MODEL.WEIGHTS in {path}; empty is for random weights.",
    )


def fit_config(
    cfg: CfgNode, stats: DataStats, *, target_diameter_px: float, random_weights: bool
) -> MaskRCNNConfig:
    """Changes a configuration to what the data ask for, as ``fit_to`` does; returns what that says.

    Args:
        cfg: Changed in place.
        stats: Of the labelled images.
        target_diameter_px: Equivalent diameter of the median object in the network's input.
        random_weights: Nothing is loaded into it: all of it has to learn, and its batch normalisations too.
    """
    head = HeadConfig(
        boxes_per_image=cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE,
        detections_per_image=max(cfg.TEST.DETECTIONS_PER_IMAGE, LEAST_DETECTIONS),
    )
    fitted = fit_to(stats, target_diameter_px=target_diameter_px, head=head)
    model = cfg.MODEL
    model.DEVICE = "cpu"  # where it is built; it moves as any module does
    model.KEYPOINT_ON = False
    model.ROI_HEADS.NUM_CLASSES = fitted.n_classes
    model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = fitted.head.boxes_per_image
    model.ROI_BOX_HEAD.USE_FED_LOSS = False  # it is for classes that are not annotated in every image
    cfg.TEST.DETECTIONS_PER_IMAGE = fitted.head.detections_per_image
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.VIS_PERIOD = 0
    _fit_proposals(model, fitted)
    _fit_norms(model, random_weights=random_weights)
    cfg.freeze()
    return fitted


def proposals_before(count: int, levels: int) -> int:
    """Proposals per level before suppression, where ``count`` was meant for each of five levels."""
    return count * LEVELS_FITTED // levels


def _fit_proposals(model: CfgNode, fitted: MaskRCNNConfig) -> None:
    levels = len(model.RPN.IN_FEATURES)
    per_level = len(model.ANCHOR_GENERATOR.SIZES[0])  # pretrained weights are for so many
    sides = np.geomspace(fitted.anchor_sides[0], fitted.anchor_sides[-1], levels * per_level)
    model.ANCHOR_GENERATOR.SIZES = [
        [float(side) for side in sides[start : start + per_level]]
        for start in range(0, len(sides), per_level)
    ]
    model.RPN.BATCH_SIZE_PER_IMAGE = max(model.RPN.BATCH_SIZE_PER_IMAGE, fitted.head.boxes_per_image)
    model.RPN.PRE_NMS_TOPK_TRAIN = proposals_before(fitted.proposals_train[0], levels)
    model.RPN.PRE_NMS_TOPK_TEST = proposals_before(fitted.proposals_test[0], levels)
    model.RPN.POST_NMS_TOPK_TRAIN = fitted.proposals_train[1]
    model.RPN.POST_NMS_TOPK_TEST = fitted.proposals_test[1]


def _fit_norms(model: CfgNode, *, random_weights: bool) -> None:
    if random_weights:  # frozen statistics that were never learnt make the first loss several hundred
        model.BACKBONE.FREEZE_AT = 0
    exchanged = {"SyncBN": "BN"}  # the same on one device, and the only one of them on a CPU
    if random_weights:
        exchanged["FrozenBN"] = "BN"
    for part in (model.RESNETS, model.FPN, model.ROI_BOX_HEAD, model.ROI_MASK_HEAD):
        part.NORM = exchanged.get(part.NORM, part.NORM)
