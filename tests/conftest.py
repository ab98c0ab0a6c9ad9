"""What every test needs: few threads, and the versions in the header."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version

from hypothesis import settings

# Read by the OpenMP runtime when torch loads it, and by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("MPLBACKEND", "Agg")

SHOWN = ("torch", "torchvision", "timm", "numpy", "lightning-fabric", "SQLAlchemy", "pycocotools", "typer")


def pytest_configure() -> None:
    import torch

    torch.set_num_threads(1)
    # How long an example takes says how busy the machine is, not whether the code is right.
    settings.register_profile("labelloop", deadline=None)
    settings.load_profile("labelloop")


def pytest_report_header() -> list[str]:
    return [f"{platform.platform()}", ", ".join(f"{name} {version(name)}" for name in SHOWN)]
