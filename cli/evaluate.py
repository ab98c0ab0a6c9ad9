"""``labelloop evaluate``."""

from __future__ import annotations

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from labelloop.cli.options import (
    JsonOption,
    MinScoreOption,
    ProjectOption,
    RunOption,
    open_project,
    parse_min_score,
)
from labelloop.cli.output import Numbers, print_json, print_table, say
from labelloop.cli.progress import shown_progress
from labelloop.errors import UsageError
from labelloop.plurals import plural


class MeasuredSplit(StrEnum):
    """Which images a run may be measured on."""

    test = "test"
    val = "val"


ProtocolName = Literal["coco", "cityscapes", "cellpose"]  # labelloop.metrics.protocols is not light


def evaluate(
    run: RunOption = None,
    split: Annotated[
        MeasuredSplit | None,
        typer.Option(
            "--split",
            help="The images to measure on. Default: test. val: where the project has no validation images,"
            " those that the run kept back for validation.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", metavar="FILE", help="Measure these predictions of any tool instead; COCO JSON."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="The annotations to compare them with; COCO JSON."),
    ] = None,
    min_score: MinScoreOption = "auto",
    protocol: Annotated[
        ProtocolName | None,
        typer.Option(
            "--protocol",
            help="Also compute the metric as the published benchmark defines it. Default: as the run's recipe"
            " says.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Also write a report on --predictions, as HTML."),
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a run, or another tool's predictions, with confidence intervals.

    COCO AP and the calibration error use all detections, whatever --min-score is; with --predictions, auto
    means 0.5.

    Examples: `labelloop evaluate --split test` or, without a project,
    `labelloop evaluate --predictions theirs.json --labels truth.json`
    """
    threshold = parse_min_score(min_score)
    _refuse_contradictions(predictions, labels, report, of_a_run=run or split)
    if predictions is not None and labels is not None:
        least = 0.5 if threshold is None else threshold
        result = _evaluate_files(predictions, labels, least, protocol, report)
    else:
        opened = open_project(project)
        from labelloop.evaluating import evaluate_run

        with shown_progress() as progress:
            result = evaluate_run(
                opened,
                run=run,
                split=(split or MeasuredSplit.test).value,
                min_score=threshold,
                protocol=protocol,
                progress=progress,
            )
    if as_json:
        print_json(result)
    else:
        show_evaluation(result)


def _refuse_contradictions(
    predictions: Path | None, labels: Path | None, report: Path | None, *, of_a_run: str | None
) -> None:
    """Refuses options for files beside options for a run, and one of the two files without the other."""
    if (predictions is None) != (labels is None):
        raise UsageError(
            "one of the two files is missing",
            value=predictions or labels or "",
            way_out="Give both --predictions and --labels.",
        )
    if report is not None and predictions is None:
        raise UsageError(
            "--report works only with --predictions",
            value=report,
            way_out="For a run of the project use labelloop report.",
        )
    if predictions is not None and of_a_run is not None:
        raise UsageError(
            "--predictions are measured against --labels, not with a run or a split",
            value=of_a_run,
            way_out="Leave --run and --split out.",
        )


def _evaluate_files(
    predictions: Path, labels: Path, min_score: float, protocol: ProtocolName | None, report: Path | None
) -> dict[str, Any]:
    from labelloop.metrics.bootstrap import REPLICATES, SEED
    from labelloop.metrics.files import evaluate_pair, evaluate_pair_by, read_pair

    pair = read_pair(predictions, labels)
    panel = evaluate_pair(pair, min_score=min_score)
    published = None if protocol is None else evaluate_pair_by(protocol, pair, min_score=min_score)
    result: dict[str, Any] = {
        "predictions": str(predictions),
        "labels": str(labels),
        **panel.as_dict(),
        "protocol": None if published is None else published.as_dict(),
        "bootstrap": {"replicates": REPLICATES, "seed": SEED},
    }
    if report is not None:
        from datetime import date

        from labelloop.report.measured import images_of
        from labelloop.report.page import write_report_of_files

        folders = [labels.parent, predictions.parent]
        images = images_of(pair.names, pair.truth, pair.predicted, folders=folders)
        write_report_of_files(
            report, result, images, title=predictions.name, classes=pair.class_names, written=date.today()
        )
        result["report"] = str(report)
    return result


def show_evaluation(result: dict[str, Any]) -> None:
    """Prints all metrics, and a few of each part; ``result`` is what ``--json`` has."""
    what = (
        f"{result['run']} ({result['which']}), {result['split']}"
        if "run" in result
        else result["predictions"]
    )
    metrics = result["metrics"]
    say(
        f"{what}: {plural(result['n_images'], 'image')}, score >= {result['min_score']:.2f}, "
        f"maxDets {result['max_dets']}, {_intervals(result)}"
    )
    for note in result["notes"]:
        say(f"note: {note}")
    numbers = Numbers(starred=not _are_few(result))
    for title, names in _SECTIONS.items():
        say("", title)
        rows = ((f"  {name}", numbers.text(metrics[name]), _unit(name, metrics[name])) for name in names)
        print_table(["", "", ""], rows)
    _show_protocol(result["protocol"], numbers)
    _show_scores(result.get("scores"))
    _show_parts(result, numbers)
    for note in numbers.footnotes():
        say("", note)


def _show_protocol(protocol: dict[str, Any] | None, numbers: Numbers) -> None:
    """The numbers of a protocol, and those of each class where there are several and not too many to read."""
    if protocol is None:
        return
    say("", f"By the protocol {protocol['name']}, as published numbers are measured")
    print_table(["", ""], ([f"  {n}", numbers.text(found)] for n, found in protocol["metrics"].items()))
    classes, names = protocol["by"]["class"], ("ap", "ap50")
    if 2 <= len(classes) <= _MOST_PARTS:
        rows = ([f"  {part}", *(numbers.text(found[n]) for n in names)] for part, found in classes.items())
        print_table(["", *names], rows)


def _show_scores(scores: dict[str, Any] | None) -> None:
    """Above which scores few objects are wrong; nothing without validation images."""
    if scores is None:
        return
    say("", "Scores above which this share of objects is right, on images not trained on (97.5 %)")
    rows = (
        [  # rounded up: what is shown of a score holds above it
            f"  {float(share):.0%}",
            "cannot be shown" if score is None else f"{math.ceil(1000 * score) / 1000:.3f}",
        ]
        for share, score in scores["score_for_precision"].items()
    )
    print_table(["", ""], rows)


def _intervals(result: dict[str, Any]) -> str:
    """What the head line says of the intervals."""
    if all(estimate["low"] is None for estimate in result["metrics"].values()):
        return "no intervals"
    if all(estimate.get("reliable", True) for estimate in result["metrics"].values()):
        return "95 % intervals"
    if not _are_few(result):
        return "95 % intervals (* unreliable)"
    n, groups = result["n_images"], result["n_groups"]
    return f"95 % intervals (n = {n if groups is None else plural(groups, 'group')}: unreliable)"


def _are_few(result: dict[str, Any]) -> bool:
    """Whether there are too few images, or groups, for any interval to be reliable."""
    from labelloop.metrics.bootstrap import FEW_UNITS

    return int(result["n_groups"] or result["n_images"]) < FEW_UNITS


def _unit(name: str, estimate: dict[str, Any]) -> str:
    return estimate.get("unit") or _UNITS.get(name, "")


def _show_parts(result: dict[str, Any], numbers: Numbers) -> None:
    """A few metrics of each class, size and group, where there are several and not too many to read."""
    from labelloop.report.metric_words import size_limits_text

    for kind, title in _PARTS.items():
        parts = result["by"][kind]
        if not 2 <= len(parts) <= _MOST_PARTS:
            continue
        limits = size_limits_text(result["size_thirds_px"]) if kind == "size" else ""
        say("", f"{title}{': ' if limits else ''}{limits}; all metrics with --json")
        rows = ([f"  {part}", *(numbers.text(parts[part][name]) for name in _OF_PARTS)] for part in parts)
        print_table(["", *_OF_PARTS], rows)
    worst = result["by"]["worst_group"]
    if worst:
        say("", "Worst groups")
        names = [name for name in _OF_PARTS if name in worst]  # a metric may have a number in no group
        print_table(["", "", ""], ([f"  {n}", worst[n]["group"], numbers.text(worst[n])] for n in names))


_PARTS = {"class": "Classes", "size": "Sizes, by thirds of the true areas", "group": "Groups"}
_MOST_PARTS = 12  # more are printed by --json only
_OF_PARTS = ("coco_ap50", "f1_50", "pq", "area_bias")
_SECTIONS = {
    "Detection": (
        "coco_ap", "coco_ap50", "coco_ap75", "cellpose_ap50", "cellpose_ap75", "cellpose_ap90",
        "precision_50", "recall_50", "f1_50", "precision_70", "recall_70", "f1_70",
    ),
    "Segmentation": ("pq", "sq", "rq", "aji", "boundary_error"),
    "Mistakes": ("misses_per_100", "spurious_per_100", "merges_per_100", "splits_per_100"),
    "Measurement": (
        "count_bias", "count_mae", "count_ccc", "area_bias", "area_low_loa", "area_high_loa",
    ),
    "Scores": ("detection_ece",),
}  # fmt: skip
_UNITS = {
    "misses_per_100": "per 100 true objects",
    "spurious_per_100": "per 100 true objects",
    "merges_per_100": "per 100 true objects",
    "splits_per_100": "per 100 true objects",
    "count_bias": "objects per image",
    "count_mae": "objects per image",
    "area_bias": "of the true area",
    "area_low_loa": "of the true area",
    "area_high_loa": "of the true area",
}
