from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from labelloop.data.synthetic import organoid_micrograph
from labelloop.data.synthetic_set import write_micrographs
from labelloop.errors import OutputError


def test_files_hold_the_micrographs_and_their_exact_truth(tmp_path: Path) -> None:
    labels = tmp_path / "some.json"
    write_micrographs(tmp_path / "some", 3, seed=4, labels=labels, size_hw=(80, 100))
    document = json.loads(labels.read_text())
    for i, image in enumerate(document["images"]):
        pixels, truth = organoid_micrograph(np.random.default_rng([4, i]), size_hw=(80, 100))
        with Image.open(tmp_path / "some" / image["file_name"]) as stored:
            assert np.array_equal(np.asarray(stored), pixels)
        written = [a["segmentation"] for a in document["annotations"] if a["image_id"] == image["id"]]
        masks = [coco_mask.decode(segmentation).astype(bool) for segmentation in written]
        assert np.array_equal(np.array(masks).reshape(-1, 80, 100), truth.to_dense())


def test_writing_again_after_an_interruption_gives_the_same_files(tmp_path: Path) -> None:
    folder, labels = tmp_path / "some", tmp_path / "some.json"
    write_micrographs(folder, 3, seed=4, labels=labels, size_hw=(40, 40))
    before = {path.name: path.read_bytes() for path in (*folder.iterdir(), labels)}
    (folder / "some-002.png").unlink()
    labels.unlink()
    write_micrographs(folder, 3, seed=4, labels=labels, size_hw=(40, 40))
    assert {path.name: path.read_bytes() for path in (*folder.iterdir(), labels)} == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_micrographs(tmp_path / "file", 1, seed=0)
