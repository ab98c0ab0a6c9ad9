"""``labelloop evaluate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from labelloop.cli.options import (
    JsonOption,
    MinScoreOption,
    ProjectOption,
    RunOption,
    open_project,
    parse_min_score,
)
from labelloop.cli.output import print_estimates, print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.errors import UsageError


class MeasuredSplit(StrEnum):
    """Which images a run may be measured on."""

    test = "test"
    val = "val"


def evaluate(
    run: RunOption = None,
    split: Annotated[MeasuredSplit, typer.Option("--split", help="On which images.")] = MeasuredSplit.test,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="FILE", help="Any tool's predictions, COCO JSON.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="The truth for them, COCO JSON.")
    ] = None,
    min_score: MinScoreOption = "auto",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a run, or another tool's predictions, with confidence intervals.

    AP uses all detections, whatever the working score; with --predictions, auto is 0.5.

    Examples: `labelloop evaluate --split test` or, without a project,
    `labelloop evaluate --predictions theirs.json --labels truth.json`
    """
    threshold = parse_min_score(min_score)
    if (predictions is None) != (labels is None):
        raise UsageError(
            "one of two files is missing",
            value=predictions or labels or "",
            way_out="--predictions and --labels go together.",
        )
    if predictions is not None and labels is not None:
        from labelloop.metrics.files import evaluate_files

        panel = evaluate_files(predictions, labels, min_score=0.5 if threshold is None else threshold)
        result = {"predictions": str(predictions), "labels": str(labels), **panel.as_dict()}
    else:
        opened = open_project(project)
        from labelloop.evaluating import evaluate_run

        with shown_progress() as progress:
            result = evaluate_run(opened, run=run, split=split.value, min_score=threshold, progress=progress)
    if as_json:
        print_json(result)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    what = (
        f"{result['run']} ({result['which']}), {result['split']}"
        if "run" in result
        else result["predictions"]
    )
    say(f"{what}: {result['n_images']} images, score >= {result['min_score']:.2f}, 95 % intervals")
    for note in result["notes"]:
        say(f"note: {note}")
    print_estimates({"value": result["metrics"]})
