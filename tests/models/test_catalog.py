from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import torch

from labelloop.errors import ModelError, UsageError
from labelloop.models import catalog
from labelloop.models.catalog import build_model, canonical_name, find_architecture, list_models

ARCHITECTURE_FILE = """
import dataclasses
from labelloop.models.mask_rcnn_sizes import mask_rcnn_lite
ARCHITECTURE = dataclasses.replace(mask_rcnn_lite(), name="ours", training_view_px=lambda stats: 77)
"""


def test_models_table_counts_parameters_right(stats):
    for info in list_models():
        if info.available and info.parameters_m is not None:
            with torch.device("meta"):  # the large ones would take gigabytes
                built = build_model(info.name, stats, pretrained=False)
            counted = sum(p.numel() for p in built.module().parameters()) / 1e6
            assert counted == pytest.approx(info.parameters_m, abs=0.06)


def test_a_python_file_brings_an_architecture(tmp_path, stats, monkeypatch):
    (tmp_path / "ours.py").write_text(ARCHITECTURE_FILE)
    monkeypatch.chdir(tmp_path)
    architecture, variant = find_architecture("ours.py")
    assert (architecture.name, variant) == ("ours", None)
    assert catalog.training_view_px("ours.py", stats) == 77
    kept = canonical_name("ours.py")
    monkeypatch.chdir("/")
    assert find_architecture(kept)[0].name == "ours"


def test_a_variant_that_is_a_file_or_folder_is_kept_so_that_it_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").touch()
    (tmp_path / "folder").mkdir()
    for variant in ("weights.pth", "folder"):
        assert canonical_name(f"mask-rcnn-r50:{variant}") == f"mask-rcnn-r50:{tmp_path / variant}"
    assert canonical_name("detectron2:COCO/no_file") == "detectron2:COCO/no_file"
    assert canonical_name("mask-rcnn-lite") == "mask-rcnn-lite"


@pytest.mark.parametrize(
    ("text", "says"),
    [("ARCHITECTURE = 3", "not a labelloop"), ("import nothing_like_it", "imported"), ("def (", "imported")],
)
def test_a_file_without_an_architecture_is_named(tmp_path, text, says):
    path = tmp_path / "ours.py"
    path.write_text(text)
    with pytest.raises(ModelError, match=says) as error:
        find_architecture(str(path))
    assert "ours.py" in str(error.value)


@pytest.mark.parametrize("name", ["no-such-model", "nowhere/ours.py", "mask-rcnn-lite:file"])
def test_names_that_stand_for_nothing_are_errors(name):
    with pytest.raises(UsageError):
        find_architecture(name)


def test_what_follows_the_colon_is_the_variant():
    architecture, variant = find_architecture("mask-rcnn-r50:a/b:c.pth")
    assert (architecture.name, variant) == ("mask-rcnn-r50", "a/b:c.pth")


def test_an_offer_that_cannot_be_imported_is_listed_with_the_reason(monkeypatch):
    point = EntryPoint(name="broken", value="no_such_package.model:ARCHITECTURE", group=catalog.ENTRY_POINTS)
    monkeypatch.setattr(catalog, "_offered", lambda: (point,))
    row = {info.name: info for info in list_models()}["broken"]
    assert not row.available
    assert "no_such_package" in row.note
    with pytest.raises(ModelError):
        find_architecture("broken")
