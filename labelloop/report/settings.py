"""Sections about settings and versions: all that decided the numbers of a page."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labelloop import __version__
from labelloop.plurals import plural
from labelloop.report.markup import Child, Markup, details, facts
from labelloop.report.metric_words import NO_NUMBER, size_limits_text
from labelloop.report.project_facts import ProjectFacts

MOST_VALUES = 12  # of a list
_COMPUTING = ("numpy", "scipy")  # packages that compute metrics and intervals


def settings_section(found: ProjectFacts) -> list[Child]:
    """Every setting and version, behind clicks."""
    sections: list[Child] = [details("The project", facts(_flat(found.settings)))]
    if found.measurement is not None:
        measured = measured_with(found.measurement.document, found.measurement.classes)
        sections.append(details("How it was measured", facts(measured)))
    if found.run is not None:
        config, result = dict(found.run.config), dict(found.run.result or {})
        for part in ("supervised", "guided", "difference", "schedule", "gate", "protocol"):
            result.pop(part, None)
        for title, keys in (
            ("Versions", ("labelloop", "versions", "device")),
            ("What was asked for", ("request",)),
            ("Recipe and schedule", ("recipe", "schedule")),
        ):
            pairs = _flat({key: config.pop(key) for key in keys if key in config})
            if pairs:
                sections.append(details(title, facts(pairs)))
        sections.append(details("Labels and data of the run", facts(_flat(config))))
        sections.append(details("How the run went", facts(_flat(result))))
    return sections


def files_settings_section(document: Mapping[str, Any], classes: Sequence[str]) -> Markup:
    """The files that were compared, and how; no folders, as the page is mailed."""
    files = [
        (title, Path(str(document[key])).name)
        for title, key in (("Predictions", "predictions"), ("Truth", "labels"))
        if document.get(key)
    ]
    return facts([*files, *measured_with(document, classes)])


def measured_with(document: Mapping[str, Any], classes: Sequence[str]) -> list[tuple[Child, Child]]:
    """Settings and versions of a measurement, for ``facts``.

    Args:
        document: As ``evaluate --json`` prints it.
        classes: Names.
    """
    groups, bootstrap = document.get("n_groups"), document.get("bootstrap") or {}
    protocol, limits = document.get("protocol") or {}, size_limits_text(document.get("size_thirds_px"))
    drawn = plural(document["n_images"], "image") if groups is None else plural(groups, "group")
    rows: list[tuple[Child, Child]] = [
        ("Images", f"{document['n_images']:,}"),
        ("Classes", _in_words(list(classes))),
        ("Score that counts as an object", f"{float(document['min_score']):.6g} or more"),
        ("maxDets of AP", _in_words(document.get("max_dets"))),
        ("Protocol", str(protocol.get("name", NO_NUMBER))),
        ("Sizes", limits or NO_NUMBER),
        ("Intervals", f"95 %, bootstrap over {drawn}"),
    ]
    rows += [(f"Bootstrap {name}", f"{value:,}") for name, value in bootstrap.items()]
    rows += [("labelloop", __version__), ("Python", platform.python_version())]
    return rows + [(package, version(package)) for package in _COMPUTING]


def _flat(document: Mapping[str, Any], before: str = "") -> list[tuple[Child, Child]]:
    """Names with dots, and values in words; long lists and tables are counted."""
    pairs: list[tuple[Child, Child]] = []
    for key, value in document.items():
        name = f"{before}{key}"
        by_number = isinstance(value, Mapping) and all(str(each).isdigit() for each in value)
        if isinstance(value, Mapping) and value and not by_number:
            pairs += _flat(value, f"{name}.")
        else:
            pairs.append((name, _in_words(value)))
    return pairs


def _in_words(value: object) -> str:
    if value is None:
        return NO_NUMBER
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return plural(len(value), "entry", "entries") if value else NO_NUMBER
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > MOST_VALUES:
            return plural(len(value), "value")
        return ", ".join(_in_words(each) for each in value) or NO_NUMBER
    return str(value)
