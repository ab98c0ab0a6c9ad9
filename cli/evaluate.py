"""``labelloop evaluate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from labelloop.cli.options import JsonOption, ProjectOption, open_project, parse_min_score
from labelloop.cli.output import print_estimates, print_json, say
from labelloop.cli.progress import shown_progress
from labelloop.errors import UsageError


class MeasuredSplit(StrEnum):
    """Which images a run may be measured on."""

    test = "test"
    val = "val"


def evaluate(
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="Default: the newest finished run.")
    ] = None,
    split: Annotated[MeasuredSplit, typer.Option("--split", help="On which images.")] = MeasuredSplit.test,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="FILE", help="Any tool's predictions, COCO JSON.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="The truth for them, COCO JSON.")
    ] = None,
    min_score: Annotated[
        str,
        typer.Option(
            "--min-score",
            metavar="auto|X",
            help="Detections below it count for AP only. auto: the run's own; 0.5 with --predictions.",
        ),
    ] = "auto",
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a run, or another tool's predictions, with confidence intervals.

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
        from labelloop.evaluating import evaluate_predictions

        result = evaluate_predictions(predictions, labels, min_score=threshold)
    else:
        from labelloop.evaluating import evaluate_run

        opened = open_project(project)
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
    print_estimates({"value": result["metrics"]})
