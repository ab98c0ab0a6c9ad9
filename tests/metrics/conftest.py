"""Scenes whose truth is known by construction."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from labelloop.instances import Instances

Rectangle = tuple[int, int, int, int]  # top, left, height, width
Scene = Callable[..., Instances]


@pytest.fixture(scope="session")
def reference_pythons() -> Callable[[str], list[str]]:
    """Gives the interpreters that can import a tool: LABELLOOP_REFERENCE_PYTHONS, and the tests' own."""

    def of_tool(tool: str) -> list[str]:
        given = [python for python in os.environ.get("LABELLOOP_REFERENCE_PYTHONS", "").split(":") if python]
        here = [sys.executable] if importlib.util.find_spec(tool) else []
        probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({tool!r}) is None)"
        return [p for p in given if subprocess.run([p, "-c", probe], check=False).returncode == 0] + here

    return of_tool


@pytest.fixture(scope="session")
def scene() -> Scene:
    """Makes Instances of rectangles."""

    def make(
        rectangles: Sequence[Rectangle] = (),
        scores: Sequence[float] | None = None,
        *,
        labels: Sequence[int] | None = None,
        crowd: Sequence[bool] | None = None,
        size_hw: tuple[int, int] = (40, 40),
    ) -> Instances:
        masks = np.zeros((len(rectangles), *size_hw), np.uint8)
        for mask, (top, left, height, width) in zip(masks, rectangles, strict=True):
            mask[top : top + height, left : left + width] = 1
        made = Instances.from_dense(masks, labels, scores, size_hw=size_hw)
        if crowd is None:
            return made
        return Instances(
            size_hw=made.size_hw,
            rles=made.rles,
            labels=made.labels,
            scores=made.scores,
            crowd=np.asarray(crowd, np.bool_).reshape(len(rectangles)),
        )

    return make


@pytest.fixture(scope="session")
def random_scenes() -> Callable[..., tuple[list[Instances], list[Instances]]]:
    """Makes truth and predictions: overlapping rectangles, ties, duplicates, crowds, empty images."""

    def rectangle(rng: np.random.Generator, side: int) -> Rectangle:
        height, width = rng.integers(2, side // 2, 2)
        return int(rng.integers(side - height)), int(rng.integers(side - width)), int(height), int(width)

    def moved(rng: np.random.Generator, of: Rectangle, side: int) -> Rectangle:
        top, left, height, width = (int(v) for v in np.asarray(of) + rng.integers(-1, 2, 4))
        height, width = max(1, height), max(1, width)
        return min(max(0, top), side - 1), min(max(0, left), side - 1), height, width

    def make(
        seed: int,
        *,
        n_images: int = 4,
        most: int = 8,
        n_classes: int = 2,
        crowds: bool = True,
        ties: bool = True,
    ) -> tuple[list[Instances], list[Instances]]:
        rng = np.random.default_rng(seed)
        side = 24
        truth, predicted = [], []
        for _ in range(n_images):
            true = [rectangle(rng, side) for _ in range(rng.integers(0, most + 1))]
            found = [moved(rng, r, side) for r in true for _ in range(rng.integers(0, 3))]
            found += [rectangle(rng, side) for _ in range(rng.integers(0, 3))]
            masks = [np.zeros((len(rs), side, side), np.uint8) for rs in (true, found)]
            for stack, rectangles in zip(masks, (true, found), strict=True):
                for mask, (top, left, height, width) in zip(stack, rectangles, strict=True):
                    mask[top : top + height, left : left + width] = 1
            scores = rng.random(len(found)).round(1 if ties else 9)
            labelled = [Instances.from_dense(m, rng.integers(0, n_classes, len(m))) for m in masks]
            crowd = rng.random(len(true)) < (0.2 if crowds else 0)
            truth.append(
                Instances(size_hw=(side, side), rles=labelled[0].rles, labels=labelled[0].labels, crowd=crowd)
            )
            predicted.append(
                Instances(
                    size_hw=(side, side),
                    rles=labelled[1].rles,
                    labels=labelled[1].labels,
                    scores=scores.astype(np.float32),
                )
            )
        return truth, predicted

    return make
