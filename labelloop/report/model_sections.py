"""Sections about a model that was measured: how good it is, its images, its counts, sizes and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from labelloop.plurals import plural
from labelloop.project.project import RunRecord
from labelloop.report.figures import counts_figure, reliability_figure, sizes_figure
from labelloop.report.markup import Child, Markup, details, items, note, paragraph, table, tag
from labelloop.report.measured import ImageOutcome, Outcomes, best_middle_worst
from labelloop.report.metric_tables import (
    all_metrics,
    comparison_table,
    metrics_table,
    parts_table,
    reliability_tag,
    unreliable_mark,
    worst_groups_table,
)
from labelloop.report.metric_words import (
    HEADLINE,
    NO_NUMBER,
    Estimate,
    is_unreliable,
    number_text,
    size_limits_text,
    words_for,
)
from labelloop.report.pictures import colour_key, how_to_read, picture_pair
from labelloop.report.protocols import protocol_comparison, protocol_tables

PICTURES_OF_A_KIND = 2
MOST_ROWS = 400  # of the table of images
MODELS = {"guided": "guided model", "supervised": "supervised baseline"}
SPLITS = {"test": "test", "val": "validation", "out-of-fold": "out-of-fold"}
_PARTS = {"class": "By class", "size": "By size, thirds of the true areas", "group": "By group"}


def in_a_sentence(document: Mapping[str, Any], who: str) -> Markup:
    """What the numbers say, with their intervals, for someone who reads one sentence."""
    shares = {"recall_50": "the objects are found", "precision_50": "the predicted objects are right"}
    known = {
        what: estimate
        for name, what in shares.items()
        if (estimate := document["metrics"].get(name, {})).get("value") is not None
    }
    few = reliability_tag(document) if any(map(is_unreliable, known.values())) else None
    parts, interval = [], "95 % interval "
    for what, estimate in known.items():
        within = _percent_interval(estimate, interval, marked=few is None)
        interval = "" if estimate.get("low") is not None else interval  # said once
        parts.append(f"{100 * float(estimate['value']):.0f}\N{NO-BREAK SPACE}% of {what}{within}")
    were = "were" if who.endswith("s") else "was"
    said = f"{' and '.join(parts)}, with the {who}" if parts else f"The {who} {were} measured"
    on = plural(document["n_images"], _kind_of(document) + "image")
    return tag("p", f"{said}, on {on}.", [" ", few] if few else None, class_="lead")


def quality_section(document: Mapping[str, Any], *, run: RunRecord | None = None) -> list[Child]:
    """The panel, the baseline beside it, and its parts."""
    metrics = document["metrics"]
    model = MODELS.get(str(document.get("which")), "model")
    measured = f"Run {run.name}, {model}, measured" if run else "Measured"
    threshold = f"score {float(document['min_score']):.2f} or more counts as an object"
    if document.get("max_dets"):
        threshold += f"; AP with maxDets {document['max_dets']}"
    on = plural(document["n_images"], _kind_of(document) + "image")
    found: list[Child] = [
        paragraph(
            f"{measured} on {on}; {threshold}. ",
            reliability_tag(document),
        ),
        note(
            "Brackets hold the 95 % interval: how far a number may be off by the chance of which "
            "images were measured."
        ),
        metrics_table("The metrics that tell most", metrics, [name for name in HEADLINE if name in metrics]),
    ]
    if document.get("notes"):
        found.append(items(sentence(str(each)) for each in document["notes"]))
    found += protocol_tables(document.get("protocol"))
    found.append(all_metrics(metrics, opened_by=f"All {len(metrics)} metrics"))
    found += _parts(document)
    return found


def comparison_section(run: RunRecord) -> list[Child] | None:
    """The supervised baseline against the guided model; None of runs without both."""
    result = run.result or {}
    models = [result.get(part) for part in ("supervised", "guided", "difference")]
    if not all(models):
        return None
    baseline, guided, difference = (dict(each or {}) for each in models)
    names = [name for name in HEADLINE if all(name in each for each in (baseline, guided, difference))]
    split = SPLITS.get(str(result.get("split")), "")
    promoted, gate = MODELS.get(run.promoted or "", ""), result.get("gate") or {}
    document = {"metrics": baseline, "n_images": max((e.get("n", 0) for e in baseline.values()), default=0)}
    unverified = f"though the {split} images could not tell" if gate else "without images to choose by"
    told = result.get("verified") and gate.get("verdict") != "undecided"
    why = f"by {split} images" if told else unverified
    chosen = f"Promoted: the {promoted}, {why}." if promoted else ""
    published = protocol_comparison(result.get("protocol"))
    return [
        paragraph(
            "Both were trained on the same labels; the guided model also on images without labels. "
            f"{chosen} ",
            reliability_tag(document),
        ),
        paragraph("The gate: ", sentence(str(gate["reason"]))) if gate.get("reason") else None,
        comparison_table(f"On the {split} images, paired", baseline, guided, difference, names),
        published,
        note("Each row is judged by itself: where nothing differs, one row in twenty looks as if it did."),
    ]


def pictures_section(outcomes: Outcomes) -> list[Child]:
    """The best, the middle and the worst images, and a table of all."""
    picked = best_middle_worst(outcomes.images, PICTURES_OF_A_KIND)
    return [
        how_to_read(),
        colour_key([outcome for _, outcome in picked]),
        tag("div", [picture_pair(kind, outcome) for kind, outcome in picked], class_="pairs"),
        details(f"All {plural(len(outcomes.images), 'image')}", _images_table(outcomes.images)),
    ]


def plots_section(outcomes: Outcomes, scores: Mapping[str, Any] | None) -> list[Child]:
    """Counts, sizes, scores.

    Args:
        outcomes: What became of the objects.
        scores: What the scores are worth, as ``evaluate --json`` has it; None where that is not known.
    """
    plots = [counts_figure(outcomes.images), sizes_figure(outcomes), reliability_figure(outcomes)]
    return [tag("div", plots, class_="plots"), *_scores_to_rely_on(scores)]


def headline_card(document: Mapping[str, Any], name: str) -> tuple[str, str, Child] | None:
    """Title, number and interval of a metric, for a card; None where it has no value."""
    estimate = document["metrics"].get(name, {})
    if estimate.get("value") is None:
        return None
    words = words_for(name)
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return words.title, number_text(words, float(estimate["value"])), estimate.get("reason")
    interval = f"95 %: {number_text(words, low)} to {number_text(words, high)}"
    mark = unreliable_mark(document, estimate)
    return (
        words.title,
        number_text(words, float(estimate["value"])),
        [interval, [" ", mark] if mark else None],
    )


def sentence(text: str) -> str:
    """A message as a sentence: with a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _percent_interval(estimate: Estimate, said: str, *, marked: bool) -> str:
    """`` (95 % interval 66 to 95 %)``, or why there is none.

    Args:
        estimate: Of a share.
        said: What stands before the numbers.
        marked: Whether an unreliable one is called so here.
    """
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return f" ({estimate['reason']})" if estimate.get("reason") else ""
    unreliable = ", unreliable" if marked and is_unreliable(estimate) else ""
    return f" ({said}{100 * float(low):.0f} to {100 * float(high):.0f}\N{NO-BREAK SPACE}%{unreliable})"


def _scores_to_rely_on(scores: Mapping[str, Any] | None) -> list[Child]:
    """From which score on objects are right often enough; nothing where that was not looked for."""
    found = (scores or {}).get("score_for_precision") or {}
    if not found:
        return []
    lowest = [  # rounded up: what is shown of a score holds above it
        "cannot be shown" if score is None else f"{math.ceil(1000 * float(score)) / 1000:.3f}"
        for score in found.values()
    ]
    columns = ["", *(f"at least {100 * float(share):g} % right" for share in found)]
    return [
        table("Scores to rely on", columns, [["score from", *lowest]]),
        note(
            "Of the objects with this score or a higher one at least so many are right, by the lower 97.5 % "
            "bound of their share in images that the model had not learnt. Where that cannot be shown, the "
            "objects were too few, or too few of them right."
        ),
    ]


def _kind_of(document: Mapping[str, Any]) -> str:
    split = SPLITS.get(str(document.get("split")), "")
    return f"{split} " if split else ""


def _parts(document: Mapping[str, Any]) -> list[Markup]:
    by, limits = document.get("by") or {}, size_limits_text(document.get("size_thirds_px"))
    titles = {**_PARTS, "size": f"{_PARTS['size']}: {limits}" if limits else _PARTS["size"]}
    found = [parts_table(title, by[kind]) for kind, title in titles.items() if len(by.get(kind) or {}) >= 2]
    if by.get("worst_group"):
        found += [
            worst_groups_table(by["worst_group"]),
            note("The worst of many groups is bad by chance too: its interval says how bad it may be."),
        ]
    return [details("By class, size and group", found)] if found else []


def _images_table(images: Sequence[ImageOutcome]) -> Markup:
    ranked = sorted(images, key=lambda o: (o.quality is None, o.quality or 0.0, o.image.name))
    rows: list[list[Child]] = [
        [
            outcome.image.name,
            outcome.true,
            outcome.predicted,
            int(outcome.hit.sum()),
            int(outcome.missed.sum()),
            int(outcome.made_up.sum()),
            NO_NUMBER if outcome.quality is None else f"{outcome.quality:.3f}",
        ]
        for outcome in ranked[:MOST_ROWS]
    ]
    caption = "The worst first" + (f"; the first {MOST_ROWS}" if len(ranked) > MOST_ROWS else "")
    heads = ["", "true", "predicted", "found", "missed", "false positives", "quality"]
    return table(caption, heads, rows, stacks=False)
