"""check_project on small projects in which every fault was planted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from labelloop.data.checks import CheckReport, check_project
from labelloop.data.synthetic import organoid_micrograph
from labelloop.instances import Instances
from labelloop.project.adding import add_images
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow, LabelRow


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.init(tmp_path / "project", ProjectConfig(name="checked", classes=("organoid",)))


def field(seed: int, side: int = 256) -> np.ndarray:
    return organoid_micrograph(np.random.default_rng(seed), size_hw=(side, side))[0]


def add(
    project: Project,
    name: str,
    pixels: np.ndarray,
    *,
    split: str = "train",
    group: str | None = None,
    labels: Instances | None = None,
) -> Path:
    path = project.root.parent / split / name
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    row = ImageRow(
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        path=str(path),
        file_name=name,
        height=pixels.shape[0],
        width=pixels.shape[1],
        split=split,
        group=group,
    )
    with project.ledger.write() as session:
        session.add(row)
        session.flush()
        if labels is not None:
            stored = encode_instances(labels)
            session.add(
                LabelRow(image_id=row.id, revision=1, source="test", n_objects=len(labels), instances=stored)
            )
    return path


def found(report: CheckReport) -> set[tuple[str, tuple[str, ...]]]:
    return {(finding.kind, finding.images) for finding in report.findings}


def test_a_sound_project_has_no_findings(project: Project) -> None:
    for seed in range(6):
        pixels, truth = organoid_micrograph(np.random.default_rng(seed))
        add(project, f"{seed}.png", pixels, split=("train", "val", "test")[seed % 3], labels=truth)
    report = check_project(project)
    assert report.findings == ()
    assert (report.images_checked, report.labels_checked) == (6, 6)


@pytest.mark.parametrize("channel", [0, 2])
def test_a_leak_between_images_with_content_in_one_colour_is_found(project: Project, channel: int) -> None:
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[..., channel] = field(1)
    add(project, "a.png", pixels)
    add(project, "b.png", pixels[:, ::-1], split="test")
    assert {finding.kind for finding in check_project(project).findings} == {"leak"}


def test_an_empty_project_has_no_findings(project: Project) -> None:
    assert check_project(project).as_dict() == {
        "images_checked": 0,
        "labels_checked": 0,
        "counts": {},
        "findings": [],
    }


def test_files_that_are_gone_or_broken_are_unreadable(project: Project) -> None:
    add(project, "gone.png", field(1)).unlink()
    broken = add(project, "broken.png", field(3))
    broken.write_bytes(broken.read_bytes()[:200])
    with project.ledger.write() as session:
        row = session.query(ImageRow).filter_by(file_name="broken.png").one()
        row.sha256 = hashlib.sha256(broken.read_bytes()).hexdigest()
    add(project, "sound.png", field(4))
    report = check_project(project)
    assert found(report) == {("unreadable", (name,)) for name in ("gone.png", "broken.png")}
    assert all(finding.severity == "error" for finding in report.findings)


def test_files_that_hold_something_else_than_when_they_were_added_are_changed(project: Project) -> None:
    add(project, "no image any more.png", field(1)).write_bytes(b"other")
    Image.fromarray(field(2)).save(add(project, "another image.png", field(3)))
    add(project, "sound.png", field(4))
    report = check_project(project)
    assert found(report) == {("changed", (name,)) for name in ("no image any more.png", "another image.png")}
    assert {(f.severity, f.message) for f in report.findings} == {
        ("error", "the file has changed since it was added")
    }


def test_blank_and_overexposed_images_are_named(project: Project) -> None:
    add(project, "blank.png", np.full((100, 100), 30, np.uint8))
    add(project, "bright.png", np.clip(field(1).astype(int) * 3, 0, 255).astype(np.uint8))
    assert found(check_project(project)) == {("blank", ("blank.png",)), ("saturated", ("bright.png",))}


def test_copies_are_duplicates_within_a_split_and_leaks_between_two(project: Project) -> None:
    add(project, "a.png", field(1))
    add(project, "b.tif", field(1))
    add(project, "c.png", field(2))
    add(project, "d.tif", field(2), split="test")
    report = check_project(project)
    assert found(report) == {("duplicate", ("a.png", "b.tif")), ("leak", ("c.png", "d.tif"))}
    assert report.findings[0].kind == "leak"


@pytest.mark.parametrize(("split", "kind"), [("test", "leak"), ("train", "duplicate")])
def test_a_channel_that_an_older_ledger_holds_twice_is_named_by_both_its_names(
    project: Project, split: str, kind: str
) -> None:
    path = add(project, "mc.tif", field(1), split=split)
    with project.ledger.write() as session:
        row = session.query(ImageRow).one()
        session.add(
            ImageRow(sha256=row.sha256, channel=0, path=row.path, file_name="mc.tif", height=256, width=256)
        )
    (finding,) = check_project(project).findings
    assert finding.kind == kind
    assert sorted(finding.images) == [str(path), f"{path} (channel 0)"]
    assert "the same pixels in 2 images" in finding.message


def test_a_brighter_copy_is_a_near_duplicate_or_a_leak(project: Project) -> None:
    brighter = np.clip(field(1) * 1.2 + 5, 0, 255).astype(np.uint8)
    add(project, "a.png", field(1))
    add(project, "b.png", brighter[::-1])
    add(project, "c.png", np.rot90(brighter), split="val")
    report = check_project(project)
    assert found(report) == {("leak", ("a.png", "b.png", "c.png"))}
    assert "train and val" in report.findings[0].message


def test_frames_of_a_film_are_one_near_duplicate(project: Project) -> None:
    rng = np.random.default_rng(0)
    for frame in range(12):
        noisy = np.clip(field(1) + rng.normal(0, 3, (256, 256)), 0, 255).astype(np.uint8)
        add(project, f"{frame:02}.png", noisy)
    add(project, "other.png", field(2))
    report = check_project(project)
    assert found(report) == {("near-duplicate", tuple(f"{frame:02}.png" for frame in range(12)))}


def test_a_piece_of_a_test_image_in_the_training_part_is_a_leak(project: Project) -> None:
    whole = field(1, side=400)
    add(project, "piece.png", np.rot90(whole[100:356, 80:336]))
    add(project, "other.png", field(2))
    add(project, "test.png", whole, split="test")
    add(project, "test2.png", field(3, side=400), split="test")
    report = check_project(project)
    assert found(report) == {("leak", ("piece.png", "test.png"))}
    assert "turned" in report.findings[0].message


def test_a_group_in_two_splits_is_a_leak(project: Project) -> None:
    add(project, "a.png", field(1), group="well-1")
    add(project, "b.png", field(2), group="well-1", split="test")
    add(project, "c.png", field(3), group="well-2")
    report = check_project(project)
    assert found(report) == {("leak", ("a.png", "b.png"))}
    assert "well-1" in report.findings[0].message


def test_a_file_with_pages_in_two_splits_is_a_leak(project: Project) -> None:
    path = project.root.parent / "stack.tif"
    tifffile.imwrite(path, np.stack([field(1), field(2)]))
    add_images(project, [str(path)])
    add_images(project, [str(path)], page=1, split="test")
    report = check_project(project)
    assert found(report) == {("leak", (str(path), f"{path} (page 1)"))}


def test_bad_masks_are_named(project: Project) -> None:
    pixels, truth = organoid_micrograph(np.random.default_rng(1), n_objects=12)
    masks = truth.to_dense()
    speck = np.zeros((1, 256, 256), bool)
    speck[0, 100, 100:103] = True
    bad = np.concatenate([masks, np.zeros_like(speck), speck, masks[:1]])
    add(project, "sound.png", field(2), labels=truth)
    add(project, "bad.png", pixels, labels=Instances.from_dense(bad))
    add(project, "off.png", field(3), labels=Instances.from_dense(np.ones((1, 20, 30), bool)))
    report = check_project(project)
    assert found(report) == {
        ("mask-off-image", ("off.png",)),
        ("mask-empty", ("bad.png",)),
        ("mask-tiny", ("bad.png",)),
        ("mask-twice", ("bad.png",)),
    }


def test_findings_come_the_worst_first_and_images_of_one_name_are_told_apart(project: Project) -> None:
    add(project, "same.png", np.zeros((64, 64), np.uint8))
    add(project, "same.png", field(1), split="test").unlink()
    report = check_project(project)
    assert [finding.severity for finding in report.findings] == ["error", "warning"]
    assert len({finding.images for finding in report.findings}) == 2
