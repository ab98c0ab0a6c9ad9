"""check_project: looks at every image and label of a project, and at every pair that could leak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from labelloop.data.checks.comparison import Comparison
from labelloop.data.checks.findings import CheckReport, Finding, finding, ranked
from labelloop.data.checks.fingerprint import Fingerprint, fingerprint, keypoint_budget
from labelloop.data.checks.masks import check_masks, typical_areas
from labelloop.data.groups import groups_of
from labelloop.progress import Progress, Silent, stage
from labelloop.project.project import SPLITS, ImageRecord, Project


def check_project(project: Project, *, progress: Progress | None = None) -> CheckReport:
    """Looks for what would spoil a training or make its numbers look better than they are.

    Every image is read once. Images of different splits are compared for shared content: the same image,
    a piece of it at any place, turned by quarter turns, mirrored, exposed otherwise; whole images also at
    another scale. Within a split, images that are the same or nearly so are found.

    Args:
        project: With any number of images, labelled or not.
        progress: Told of each image.
    """
    progress = progress or Silent()
    records = project.images()
    names = _names(records)
    sides = [len([r for r in records if r.split == split]) for split in SPLITS]
    budget = keypoint_budget(max(sides), sum(sides) - max(sides)) if sum(map(bool, sides)) > 1 else 0
    prints: list[Fingerprint] = []
    with stage(progress, "reading images", len(records)):
        for record in records:
            prints.append(fingerprint(record, keypoints=budget))
            progress.advance()
    comparison = Comparison(records, names, prints)
    duplicates = comparison.duplicates()
    told = {frozenset(one.images) for one in duplicates}
    findings = [*_image_faults(names, prints), *duplicates]
    findings += [one for one in _split_groups(records, names) if frozenset(one.images) not in told]
    findings += comparison.twins(progress)
    findings += comparison.pieces(progress)
    label_findings, labels_checked = _label_faults(project, records, names, progress)
    return CheckReport(
        findings=ranked([*findings, *label_findings]),
        images_checked=len(records),
        labels_checked=labels_checked,
    )


def _names(records: Sequence[ImageRecord]) -> list[str]:
    """File names; where several images share one, their paths; page and channel where they are given."""
    shared: dict[str, int] = defaultdict(int)
    for record in records:
        shared[record.file_name] += 1
    names = []
    for record in records:
        name = record.file_name if shared[record.file_name] == 1 else str(record.path)
        parts = [f"page {record.page}"] * bool(record.page)
        parts += [f"channel {record.channel}"] * (record.channel >= 0)
        names.append(f"{name} ({', '.join(parts)})" if parts else name)
    return names


def _image_faults(names: Sequence[str], prints: Sequence[Fingerprint]) -> list[Finding]:
    found = []
    for name, seen in zip(names, prints, strict=True):
        if seen.fault is not None:
            found.append(finding("changed" if seen.changed else "unreadable", (name,), seen.fault))
        elif seen.blank is not None:
            found.append(finding("blank", (name,), f"nothing can be seen: {seen.blank}"))
        elif seen.saturated:
            message = f"{seen.saturated:.0%} of the pixels are overexposed"
            found.append(finding("saturated", (name,), message))
    return found


def _split_groups(records: Sequence[ImageRecord], names: Sequence[str]) -> list[Finding]:
    """Groups (a well, a donor, a field, a file of several pages) with images in two splits."""
    members: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record, name, group in zip(records, names, groups_of(records), strict=True):
        if group is not None:
            members[group][record.split].append(name)
    found = []
    for group, by_split in members.items():
        if len(by_split) > 1:
            counts = " and ".join(
                f"{len(by_split[split])} in {split}" for split in SPLITS if split in by_split
            )
            images = tuple(name for split in SPLITS for name in by_split.get(split, ()))
            found.append(finding("leak", images, f"group {group} has images in two splits: {counts}"))
    return found


def _label_faults(
    project: Project, records: Sequence[ImageRecord], names: Sequence[str], progress: Progress
) -> tuple[list[Finding], int]:
    labels = project.labels([record.id for record in records])
    typical = typical_areas(labels)
    found: list[Finding] = []
    with stage(progress, "checking masks", len(labels)):
        for record, name in zip(records, names, strict=True):
            if record.id in labels:
                found += check_masks(name, record.size_hw, labels[record.id], typical)
                progress.advance()
    return found, len(labels)
