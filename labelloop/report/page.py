"""The report: one HTML file that needs no other, of a project or of another tool's predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from labelloop import __version__
from labelloop.errors import OutputError
from labelloop.plurals import plural
from labelloop.progress import Progress, Silent
from labelloop.project.project import Project
from labelloop.report.markup import Child, Markup, note, tag
from labelloop.report.measured import MeasuredImage, outcomes_of
from labelloop.report.metric_words import minutes_text
from labelloop.report.model_sections import (
    MODELS,
    comparison_section,
    headline_card,
    in_a_sentence,
    pictures_section,
    plots_section,
    quality_section,
)
from labelloop.report.project_facts import Measurement, ProjectFacts, gather
from labelloop.report.project_sections import (
    budget_section,
    curve_section,
    looks_section,
    next_section,
    standing_section,
)
from labelloop.report.settings import files_settings_section, settings_section
from labelloop.report.style import style_sheet
from labelloop.whole_files import replacing

FILE_NAME = "report.html"


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the page.

    Attributes:
        key: Its address in the page: letters and hyphens.
        title: Its heading.
        content: None or nothing leaves the section out.
    """

    key: str
    title: str
    content: Child


def write_report(
    project: Project,
    *,
    run: str | None = None,
    out: Path | None = None,
    written: date | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the report of a project. It trains nothing; images that the model has not seen are predicted.

    Args:
        project: What is reported.
        run: A run; the newest finished one if None.
        out: The file; if None ``report.html`` in the run's folder, or in the project's where there is none.
        written: The day that the page names; none if None, and the same project gives the same bytes.
        progress: Where progress is reported.

    Returns:
        The file.

    Raises:
        UsageError: There is no such run.
        OutputError: The file cannot be written.
    """
    found = gather(project, run=run, progress=progress or Silent())
    there = found.run is not None and project.run_there(found.run.name)  # not if a person deleted it
    folder = project.runs_dir / found.run.name if found.run is not None and there else project.root
    return _write(out or folder / FILE_NAME, project_page(found, written=written), named_by="--out")


def write_report_of_files(
    out: Path,
    document: Mapping[str, Any],
    images: Sequence[MeasuredImage],
    *,
    title: str,
    classes: Sequence[str],
    written: date | None = None,
) -> Path:
    """Writes the report of any tool's predictions.

    Args:
        out: The file.
        document: As ``evaluate --json`` prints it.
        images: What was measured; those whose ``path`` is known are shown.
        title: For example the name of the file of predictions.
        classes: Names; the index is the label.
        written: As in ``write_report``.

    Raises:
        OutputError: The file cannot be written.
    """
    measurement = Measurement(document=document, images=tuple(images), classes=tuple(classes))
    return _write(out, measurement_page(measurement, title=title, written=written), named_by="--report")


def project_page(found: ProjectFacts, *, written: date | None = None) -> str:
    """The page of a project."""
    run, measured = found.run, found.measurement
    quality: Child = note(f"Not measured: {found.not_measured}")
    lead: Child = None
    if measured is not None:
        quality = quality_section(measured.document, run=run)
        lead = in_a_sentence(measured.document, MODELS.get(measured.document.get("which", ""), "model"))
    sections = [
        Section(key="project", title="Where the project stands", content=standing_section(found)),
        Section(key="quality", title="How good the model is", content=quality),
        Section(
            key="distillation",
            title="What unlabelled images bring",
            content=comparison_section(run) if run is not None else None,
        ),
        Section(key="curve", title="What more labels would bring", content=curve_section(found)),
        Section(key="budget", title="What annotation cost", content=budget_section(found)),
        *([] if measured is None else _of_outcomes(measured)),
        Section(key="next", title="What to review next", content=next_section(found)),
        Section(key="looks", title="Looks at the test images", content=looks_section(found)),
        Section(key="settings", title="Settings and versions", content=settings_section(found)),
    ]
    kicker = "labelloop report" + (f", run {run.name}" if run else "")
    return _page(str(found.status["project"]), kicker, [lead, _cards(found)], sections, written)


def measurement_page(measurement: Measurement, *, title: str, written: date | None = None) -> str:
    """The page of predictions without a project."""
    document = measurement.document
    cards = [headline_card(document, name) for name in ("coco_ap50", "f1_50", "pq")]
    sections = [
        Section(key="quality", title="How good the predictions are", content=quality_section(document)),
        *_of_outcomes(measurement),
        Section(
            key="settings",
            title="Settings and versions",
            content=files_settings_section(document, measurement.classes),
        ),
    ]
    head = [in_a_sentence(document, "predictions"), _card_list([card for card in cards if card])]
    return _page(title, "labelloop report of predictions", head, sections, written)


def _of_outcomes(measurement: Measurement) -> list[Section]:
    if not measurement.images:
        return []
    outcomes = outcomes_of(
        measurement.images,
        n_classes=max(1, len(measurement.classes)),
        min_score=float(measurement.document["min_score"]),
    )
    plots = plots_section(outcomes, measurement.document.get("scores"))
    return [
        Section(key="images", title="Best, middle and worst images", content=pictures_section(outcomes)),
        Section(key="plots", title="Counts, sizes and scores", content=plots),
    ]


def _cards(found: ProjectFacts) -> Markup:
    images, waiting = found.status["images"], found.status["waiting"]
    cards = []
    if found.measurement is not None:
        cards = [headline_card(found.measurement.document, name) for name in ("coco_ap50", "f1_50")]
    minutes, spent = waiting["minutes"], float(found.status["minutes_spent"])
    return _card_list(
        [
            *(card for card in cards if card),
            ("Labelled images", f"{images['labelled']:,}", f"and {images['unlabelled']:,} without labels"),
            ("Annotation so far", minutes_text(spent), f"in {plural(len(found.rounds), 'round')}"),
            (
                "Waiting for review",
                f"{waiting['tasks']:,}",
                "tasks" if minutes is None else f"tasks, about {minutes_text(float(minutes))}",
            ),
        ]
    )


def _card_list(cards: Sequence[tuple[str, str, Child]]) -> Markup:
    return tag(
        "dl",
        [
            tag(
                "div",
                tag("dt", title),
                tag("dd", tag("span", value, class_="big"), tag("span", small, class_="small")),
            )
            for title, value, small in cards
        ],
        class_="cards",
    )


def _page(title: str, kicker: str, head: Child, sections: Sequence[Section], written: date | None) -> str:
    shown = [section for section in sections if section.content]
    links = [tag("li", tag("a", section.title, href=f"#{section.key}")) for section in shown]
    day = "" if written is None else f" on {written:%Y-%m-%d}"
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        tag("header", tag("p", kicker, class_="kicker"), tag("h1", title), head),
        tag("nav", tag("ul", links), aria_label="Sections"),
        tag("main", [_section(section) for section in shown], id="content"),
        tag(
            "footer",
            f"Written by labelloop {__version__}{day}.  This page needs no network.",
        ),
    )
    meta = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} - labelloop report"),
        tag("style", Markup(style_sheet())),
    ]
    return f"<!doctype html>\n{tag('html', tag('head', meta), body, lang='en')}\n"


def _section(section: Section) -> Markup:
    return tag(
        "section",
        tag("h2", section.title, id=f"{section.key}-title"),
        section.content,
        id=section.key,
        aria_labelledby=f"{section.key}-title",
    )


def _write(path: Path, page: str, *, named_by: str) -> Path:
    """Writes the page whole or not at all; ``named_by`` is the flag that names another file."""
    content = page.encode("utf-8", "backslashreplace")  # names of files need not be Unicode
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and (path.is_symlink() or not path.is_file()):  # such as /dev/stdout
            path.write_bytes(content)
        else:
            with replacing(path) as partial:
                partial.write_bytes(content)
    except OSError as error:
        raise OutputError(
            f"the report cannot be written ({error.strerror or error})",
            value=path,
            way_out=f"Name another file with {named_by}.",
        ) from error
    return path
