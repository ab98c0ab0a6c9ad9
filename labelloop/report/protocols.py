"""The numbers of published protocols on the page: with their words, and baseline against guided model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from labelloop.report.markup import Markup
from labelloop.report.metric_tables import comparison_table, metrics_table, parts_table
from labelloop.report.metric_words import FINDING, MetricWords, words_for

_TOOLS = {
    "coco": "pycocotools", "cityscapes": "cityscapesScripts", "cellpose": "cellpose.metrics",
}  # fmt: skip
_OF_CLASSES = ("ap", "ap50")
_KNOWN = {
    "coco": {
        "ap": ("AP", "Mean over IoU 0.50 to 0.95; the best 100 predictions of an image and class count."),
        "ap50": ("AP at IoU 0.5", "The same at IoU 0.5 alone."),
        "ap75": ("AP at IoU 0.75", "The same at IoU 0.75 alone."),
        "ap_small": ("AP of small objects", "Of objects with an area of up to 32 x 32 px."),
        "ap_medium": ("AP of medium objects", "Of objects from 32 x 32 to 96 x 96 px."),
        "ap_large": ("AP of large objects", "Of objects from 96 x 96 px on."),
        "ar100": ("Average recall", "Share of true objects found by the best 100, mean over the same IoUs."),
    },
    "cityscapes": {
        "ap": ("AP", "Mean over IoU 0.50 to 0.95; objects below 100 px are left out."),
        "ap50": ("AP at IoU 0.5", "The same at IoU 0.5 alone."),
    },
    "cellpose": {
        "ap": ("AP", "Mean of those below."),
        "ap50": ("AP at IoU 0.5", "Found / (found + missed + false positives), mean over images."),
        **{
            f"ap{percent}": (f"AP at IoU {percent / 100:g}", f"The same with IoU {percent / 100:g}.")
            for percent in range(55, 101, 5)
        },
    },
}


def words_of_protocol(protocol: str) -> Callable[[str], MetricWords]:
    """How to read the metrics of a protocol, whose names mean something else in others."""

    def words(name: str) -> MetricWords:
        if name not in _KNOWN.get(protocol, {}):
            return words_for(name)
        title, meaning = _KNOWN[protocol][name]
        return MetricWords(name=name, title=title, meaning=meaning, section=FINDING)

    return words


def protocol_tables(protocol: Mapping[str, Any] | None) -> list[Markup]:
    """A table of a protocol's numbers, and one of its classes where there are several.

    Args:
        protocol: ``ProtocolResult.as_dict``; None for nothing.
    """
    if not protocol:
        return []
    name, metrics = str(protocol["name"]), protocol["metrics"]
    words, title = words_of_protocol(name), _title(name)
    found = [metrics_table(f"{title}, as published numbers are measured", metrics, metrics, words=words)]
    classes = (protocol.get("by") or {}).get("class") or {}
    if len(classes) >= 2:
        found.append(
            parts_table(f"By the protocol {name}, by class", classes, names=_OF_CLASSES, words=words)
        )
    return found


def protocol_comparison(protocol: Mapping[str, Any] | None) -> Markup | None:
    """Baseline, guided model and paired difference by a protocol; None where a run has not all of them.

    Args:
        protocol: Of a run's result: ``name``, ``supervised``, ``guided`` and ``difference``.
    """
    models = [(protocol or {}).get(part) for part in ("supervised", "guided", "difference")]
    if protocol is None or not all(models):
        return None
    baseline, guided, difference = (dict(each or {}) for each in models)
    names = [name for name in difference if name in baseline and name in guided]
    name = str(protocol["name"])
    caption = f"{_title(name)}, paired"
    return comparison_table(caption, baseline, guided, difference, names, words=words_of_protocol(name))


def _title(name: str) -> str:
    tool = _TOOLS.get(name)
    return f"By the protocol {name} ({tool})" if tool else f"By the protocol {name}"
