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
from labelloop.cli.output import format_estimate, print_json, print_table, say
from labelloop.cli.progress import shown_progress
from labelloop.errors import UsageError


class MeasuredSplit(StrEnum):
    """Which images a run may be measured on."""

    test = "test"
    val = "val"


ProtocolName = Literal["coco", "cityscapes", "cellpose"]  # labelloop.metrics.protocols is not light


def evaluate(
    run: RunOption = None,
    split: Annotated[
        MeasuredSplit | None, typer.Option("--split", help="The images to measure on. Default: test.")
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
        _show(result)


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
    from labelloop.metrics.files import evaluate_pair, evaluate_pair_by, read_pair

    pair = read_pair(predictions, labels)
    panel = evaluate_pair(pair, min_score=min_score)
    published = None if protocol is None else evaluate_pair_by(protocol, pair, min_score=min_score)
    result: dict[str, Any] = {
        "predictions": str(predictions),
        "labels": str(labels),
        **panel.as_dict(),
        "protocol": None if published is None else published.as_dict(),
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


def _show(result: dict[str, Any]) -> None:
    what = (
        f"{result['run']} ({result['which']}), {result['split']}"
        if "run" in result
        else result["predictions"]
    )
    metrics = result["metrics"]
    say(
        f"{what}: {result['n_images']} images, score >= {result['min_score']:.2f}, "
        f"maxDets {result['max_dets']}, {_intervals(result)}"
    )
    for note in result["notes"]:
        say(f"note: {note}")
    for title, names in _SECTIONS.items():
        say("", title)
        rows = ((f"  {name}", format_estimate(metrics[name]), _unit(name, metrics[name])) for name in names)
        print_table(["", "", ""], rows)
    _show_protocol(result["protocol"])
    _show_scores(result.get("scores"))
    _show_parts(result)


def _show_protocol(protocol: dict[str, Any] | None) -> None:
    """The numbers of a protocol, and those of each class where there are several and not too many to read."""
    if protocol is None:
        return
    say("", f"By the protocol {protocol['name']}, as published numbers are measured")
    print_table(["", ""], ([f"  {n}", format_estimate(found)] for n, found in protocol["metrics"].items()))
    classes, names = protocol["by"]["class"], ("ap", "ap50")
    if 2 <= len(classes) <= _MOST_PARTS:
        rows = ([f"  {part}", *(format_estimate(found[n]) for n in names)] for part, found in classes.items())
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
    from labelloop.metrics.bootstrap import FEW_UNITS

    if any(not estimate.get("reliable", True) for estimate in result["metrics"].values()):
        n, units = result["n_groups"], "groups"
        if n is None:
            n, units = result["n_images"], "images"
        if n >= FEW_UNITS:  # most of them without objects
            return f"95 % intervals (few {units} with objects: some unreliable)"
        return f"95 % intervals (n = {n}{'' if units == 'images' else ' groups'}: unreliable)"
    return "95 % intervals"


def _unit(name: str, estimate: dict[str, Any]) -> str:
    return estimate.get("unit") or _UNITS.get(name, "")


def _show_parts(result: dict[str, Any]) -> None:
    """A few metrics of each class, size and group, where there are several and not too many to read."""
    shown: list[dict[str, Any]] = []

    def cell(estimate: dict[str, Any]) -> str:
        shown.append(estimate)
        return format_estimate(estimate) + ("" if estimate.get("reliable", True) else " *")

    for kind, title in _PARTS.items():
        parts = result["by"][kind]
        if not 2 <= len(parts) <= _MOST_PARTS:
            continue
        say("", f"{title}; all metrics with --json")
        rows = ([f"  {part}", *(cell(parts[part][name]) for name in _OF_PARTS)] for part in parts)
        print_table(["", *_OF_PARTS], rows)
    worst = result["by"]["worst_group"]
    if worst:
        say("", "Worst groups")
        rows = ([f"  {name}", worst[name]["group"], cell(worst[name])] for name in _OF_PARTS)
        print_table(["", "", ""], rows)
    if any(not estimate.get("reliable", True) for estimate in shown):
        say("", "* from too few images or groups: this interval is unreliable")


_PARTS = {"class": "Classes", "size": "Sizes, by thirds of the true areas", "group": "Groups"}
_MOST_PARTS = 12  # more are printed by --json only
_OF_PARTS = ("coco_ap50", "f1_50", "pq", "area_bias")
_SECTIONS = {
    "Detection": (
        "coco_ap", "coco_ap50", "coco_ap75", "cellpose_ap50", "cellpose_ap75", "cellpose_ap90",
        "precision_50", "recall_50", "f1_50", "f1_70",
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
