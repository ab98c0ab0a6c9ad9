import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from labelloop.errors import FormatError
from labelloop.formats.coco import coco_dataset, read_coco
from labelloop.formats.rle import counts_to_runs, numbers_to_counts, runs_to_counts
from labelloop.instances import Instances

H, W = 30, 40
SQUARE = [5, 5, 15, 5, 15, 15, 5, 15]


def written(tmp_path, annotations, **changes):
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": W, "height": H}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 3} | a for i, a in enumerate(annotations)],
        "categories": [{"id": 3, "name": "organoid"}, {"id": 9, "name": "debris"}],
    } | changes
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(document))
    return path


def only(tmp_path, *annotations):
    """The instances of the one image, none of its annotations skipped."""
    labels = read_coco(written(tmp_path, annotations))
    assert labels.skipped == ()
    (record,) = labels.records
    return record.instances


def square_mask():
    mask = np.zeros((H, W), bool)
    mask[5:15, 5:15] = True
    return mask


def test_a_polygon_covers_its_pixels(tmp_path):
    instances = only(tmp_path, {"segmentation": [SQUARE]})
    np.testing.assert_array_equal(instances.mask(0), square_mask())
    assert instances.labels.tolist() == [0]


def test_parts_of_a_polygon_are_joined(tmp_path):
    instances = only(
        tmp_path, {"segmentation": [SQUARE, [20, 20, 24, 20, 24, 24, 20, 24], [5, 5, 10, 5, 10, 9]]}
    )
    assert instances.areas.tolist() == [100 + 16]


def test_polygons_equal_the_coco_reference(tmp_path):
    ragged = [3.2, 4.1, 33.9, 7.7, 12.5, 28.4, 30.0, 2.2, 6.6, 25.1]  # crosses itself
    reference = coco_mask.merge(coco_mask.frPyObjects([ragged], H, W))
    assert only(tmp_path, {"segmentation": [ragged]}).rles == (reference["counts"],)


def test_run_lengths_may_be_compressed_or_not(tmp_path):
    encoded = coco_mask.encode(np.asfortranarray(square_mask().astype(np.uint8)))
    runs = counts_to_runs(encoded["counts"]).tolist()
    compressed = {"size": [H, W], "counts": encoded["counts"].decode()}
    padded = {"size": [H, W], "counts": [*runs[:1], 0, 0, *runs[1:], 0]}  # the same mask, clumsily
    instances = only(
        tmp_path, {"segmentation": compressed}, {"segmentation": {"size": [H, W], "counts": runs}},
        {"segmentation": padded},
    )  # fmt: skip
    assert instances.rles == (encoded["counts"],) * 3


def test_crowds_and_classes_are_kept(tmp_path):
    instances = only(
        tmp_path, {"segmentation": [SQUARE], "iscrowd": 1}, {"segmentation": [SQUARE], "category_id": 9}
    )
    assert instances.crowd.tolist() == [True, False]
    assert instances.labels.tolist() == [0, 1]


def brush(**changes):
    """A mask as CVAT writes it: uncompressed run lengths that are called a crowd."""
    runs = counts_to_runs(coco_mask.encode(np.asfortranarray(square_mask().astype(np.uint8)))["counts"])
    return {"segmentation": {"size": [H, W], "counts": runs.tolist()}, "iscrowd": 1} | changes


@pytest.mark.parametrize(
    ("annotations", "crowd"),
    [
        pytest.param(
            [brush(attributes={"occluded": False}), {"segmentation": [SQUARE], "attributes": {}}],
            [False, False],
            id="cvat-beside-polygons",
        ),
        pytest.param([brush(), brush()], [False, False], id="nothing-but-crowds"),
        pytest.param([brush(), {"segmentation": [SQUARE]}], [True, False], id="crowds-of-coco"),
        pytest.param(
            [{"segmentation": [SQUARE], "iscrowd": 1, "attributes": {}}], [True], id="polygon-that-is-a-crowd"
        ),
        pytest.param(
            [{"segmentation": [SQUARE], "ignore": 1}, {"segmentation": [SQUARE], "ignore": 0}],
            [True, False],
            id="ignored",
        ),
        pytest.param(
            [brush(attributes={}, ignore=1), brush(attributes={})], [True, False], id="ignored-cvat-mask"
        ),
    ],
)
def test_masks_that_a_tool_calls_crowds_are_objects(tmp_path, annotations, crowd):
    assert only(tmp_path, *annotations).crowd.tolist() == crowd


@pytest.mark.parametrize("mark", ["iscrowd", "ignore"])
@pytest.mark.parametrize(
    ("value", "crowd"),
    [
        *((value, False) for value in ("0", "0.0", "false", "False", "", float("nan"), 0.0)),
        *((value, True) for value in ("1", "true", 1.0, True)),
    ],
)
def test_a_mark_may_be_written_as_text(tmp_path, mark, value, crowd):
    annotations = [{"segmentation": [SQUARE], mark: value}, {"segmentation": [SQUARE]}]
    assert only(tmp_path, *annotations).crowd.tolist() == [crowd, False]


def test_run_lengths_called_no_crowds_in_text_leave_crowds_what_they_are(tmp_path):
    assert only(tmp_path, brush(iscrowd="0"), brush(iscrowd="1")).crowd.tolist() == [False, True]
    assert only(tmp_path, brush(iscrowd="1"), brush(iscrowd="1")).crowd.tolist() == [False, False]


def test_an_object_partly_outside_is_clipped(tmp_path):
    instances = only(tmp_path, {"segmentation": [[-10, -10, 10, -10, 10, 10, -10, 10]]})
    assert instances.areas.tolist() == [100]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        pytest.param({"segmentation": [[1, 1, 5, 5]]}, "fewer than 3 points", id="2-point-polygon"),
        pytest.param({"segmentation": [[1, 1, 5]]}, "not a list of x and y", id="odd-polygon"),
        pytest.param({"segmentation": [[1, 1, "a", 5, 6, 7]]}, "not numbers", id="polygon-of-text"),
        pytest.param({"segmentation": [[1, 1, float("nan"), 5, 6, 7]]}, "not numbers", id="nan"),
        pytest.param({"segmentation": [[50, 5, 60, 5, 60, 9]]}, "outside the image", id="outside"),
        pytest.param({"segmentation": [[0, 0, 1e9, 0, 0, 1e9]]}, "far outside", id="far-outside"),
        pytest.param({"segmentation": [[5, 5, 5, 5, 5, 5]]}, "empty", id="no-pixel"),
        pytest.param({"segmentation": {"size": [W, H], "counts": [W * H]}}, "its size is", id="rle-turned"),
        pytest.param(
            {"segmentation": {"size": [H, W], "counts": [7, 5]}}, "covers 12 px", id="rle-too-short"
        ),
        pytest.param({"segmentation": {"size": [H, W], "counts": [H * W]}}, "empty", id="rle-empty"),
        pytest.param(
            {"segmentation": {"size": [H, W], "counts": [-1, H * W + 1]}}, "negative", id="rle-negative"
        ),
        pytest.param({"segmentation": {"size": [H, W], "counts": "oo"}}, "RLE cannot be used", id="rle-cut"),
        pytest.param(
            {"segmentation": {"size": [H, W], "counts": "é\n"}}, "RLE cannot be used", id="rle-text"
        ),
        pytest.param({"segmentation": {"size": 4}}, "RLE cannot be used", id="rle-without-counts"),
        pytest.param({"segmentation": [], "bbox": [1, 1, 5, 5]}, "box but no mask", id="box-alone"),
        pytest.param({}, "no mask", id="nothing"),
        pytest.param({"segmentation": [SQUARE], "image_id": 77}, "image id 77", id="dangling-image"),
        pytest.param({"segmentation": [SQUARE], "category_id": 77}, "category id 77", id="dangling-category"),
        pytest.param(
            {"segmentation": [SQUARE], "image_id": [1]}, "image id", id="image-id-of-a-strange-type"
        ),
    ],
)
def test_an_object_that_cannot_be_used_is_skipped_with_its_reason(tmp_path, annotation, reason):
    labels = read_coco(written(tmp_path, [{"segmentation": [SQUARE]}, annotation]))
    (skipped,) = labels.skipped
    assert reason in skipped.reason
    assert "annotation 1" in skipped.path
    assert len(labels.records[0].instances) == 1


def test_an_image_all_of_whose_objects_are_unusable_is_not_called_empty(tmp_path):
    labels = read_coco(written(tmp_path, [{"segmentation": [[1, 1, 5, 5]]}]))
    assert labels.records == ()
    assert "none of its objects" in labels.skipped[-1].reason


@pytest.mark.parametrize(("of_image", "named"), [(1, 1.0), (1, "1"), (1.0, 1), ("1", 1), ("a", "a")])
def test_an_id_is_a_number_whether_written_as_one_or_as_text(tmp_path, of_image, named):
    images = [{"id": of_image, "file_name": "a.png", "width": W, "height": H}]
    categories = [{"id": 7, "name": "debris"}, {"id": of_image, "name": "organoid"}]
    annotation = {"segmentation": [SQUARE], "image_id": named, "category_id": named}
    labels = read_coco(written(tmp_path, [annotation], images=images, categories=categories))
    assert labels.skipped == ()
    assert labels.records[0].instances.labels.tolist() == [1]


@pytest.mark.parametrize(
    "lost", [{"image_id": 77}, {"image_id": 1.5}, {"image_id": None}, {"image_id": "01"}, {"image_id": True}]
)
def test_where_an_object_names_no_image_none_counts_as_empty(tmp_path, lost):
    images = [{"id": i, "file_name": f"{i}.png", "width": W, "height": H} for i in (1, 2)]
    labels = read_coco(
        written(tmp_path, [{"segmentation": [SQUARE]}, {"segmentation": [SQUARE]} | lost], images=images)
    )
    assert [record.image for record in labels.records] == ["1.png"]
    assert [skipped.path for skipped in labels.skipped] == ["annotation 1", "2.png"]
    assert "not known to be empty" in labels.skipped[1].reason


def test_an_id_of_two_images_names_neither(tmp_path):
    images = [{"id": i, "file_name": n, "width": W, "height": H} for i, n in ((1, "a"), ("1", "b"), (2, "c"))]
    annotations = [{"segmentation": [SQUARE]}, {"segmentation": [SQUARE], "image_id": 2}]
    labels = read_coco(written(tmp_path, annotations, images=images))
    assert [record.image for record in labels.records] == ["c"]
    assert sum("another image has" in skipped.reason for skipped in labels.skipped) == 2


def test_an_image_without_annotations_is_labelled_as_empty(tmp_path):
    labels = read_coco(written(tmp_path, []))
    assert [len(record.instances) for record in labels.records] == [0]


def test_entries_with_one_file_name_are_one_image(tmp_path):
    entries = [{"id": i, "file_name": "a.png", "width": W, "height": H} for i in (1, 2)]
    other = {"image_id": 2, "segmentation": [[20, 20, 24, 20, 24, 24, 20, 24]]}
    annotations = [{"segmentation": [SQUARE]}, {"segmentation": [SQUARE], "image_id": 2}, other]
    labels = read_coco(written(tmp_path, annotations, images=entries))
    (record,) = labels.records
    assert record.instances.areas.tolist() == [100, 16]


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        ([{"id": 1, "file_name": "a.png"}], "no width and height"),
        ([{"id": 1, "width": W, "height": H}], "no file_name"),
        ([{"file_name": "a.png", "width": W, "height": H}], "no id"),
        (["a.png"], "not an image entry"),
        (
            [{"id": 1, "file_name": n, "width": W, "height": H} for n in ("a.png", "b.png")],
            "another image has",
        ),
        ([{"id": n, "file_name": "a.png", "width": W + n, "height": H} for n in (1, 2)], "different sizes"),
    ],
)
def test_an_image_entry_that_cannot_be_used_is_skipped_with_its_reason(tmp_path, images, reason):
    labels = read_coco(written(tmp_path, [], images=images))
    assert reason in labels.skipped[0].reason


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"images": 3, "annotations": []}', "[" * 100_000, "\xff"]
)
def test_what_is_no_coco_file_is_a_format_error(tmp_path, text):
    path = tmp_path / "labels.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError) as caught:
        read_coco(path)
    assert caught.value.value == str(path)


def test_a_missing_coco_file_is_a_format_error(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read_coco(tmp_path / "none.json")


def test_without_categories_there_are_no_class_names(tmp_path):
    labels = read_coco(written(tmp_path, [{"segmentation": [SQUARE]}], categories=[]))
    assert labels.classes is None
    assert labels.records[0].instances.labels.tolist() == [0]


@pytest.mark.parametrize(
    "categories",
    [pytest.param([], id="none"), pytest.param([{"id": 3}, {"id": 9, "name": " "}], id="unnamed")],
)
def test_several_classes_without_names_are_refused(tmp_path, categories):
    annotations = [{"segmentation": [SQUARE]}, {"segmentation": [SQUARE], "category_id": 9}]
    with pytest.raises(FormatError, match=r"several classes.*3, 9.*categories"):
        read_coco(written(tmp_path, annotations, categories=categories))


def test_predictions_are_not_labels(tmp_path):
    scored = Instances.from_dense(square_mask()[None], scores=[0.06])
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(coco_dataset([("a.png", (H, W))], [scored], ["organoid"])))
    with pytest.raises(FormatError, match=r"scores.*predictions\.json.*evaluate --predictions"):
        read_coco(path)


def test_a_score_that_is_nothing_is_no_prediction(tmp_path):
    assert only(tmp_path, {"segmentation": [SQUARE], "score": None}).areas.tolist() == [100]


masks_strategy = arrays(np.bool_, (3, 9, 7))


@given(masks=masks_strategy, labels=st.lists(st.integers(0, 1), min_size=3, max_size=3), crowd=st.booleans())
@settings(deadline=None, max_examples=50)
def test_written_annotations_are_read_back_the_same(tmp_path_factory, masks, labels, crowd):
    keep = masks.any((1, 2))
    if not keep.any():
        return
    instances = Instances.from_dense(masks, labels).select(keep)
    instances.crowd[0] = crowd
    path = tmp_path_factory.mktemp("coco") / "out.json"
    path.write_text(json.dumps(coco_dataset([("x y.png", (9, 7))], [instances], ["a", "b"])))
    labels = read_coco(path)
    assert labels.skipped == ()
    assert labels.classes == ("a", "b")
    assert labels.records[0].image == "x y.png"
    assert labels.records[0].instances == instances


def test_a_dataset_opens_in_pycocotools(tmp_path, capsys):
    from pycocotools.coco import COCO

    instances = Instances.from_dense(square_mask()[None], scores=[0.25])
    path = tmp_path / "out.json"
    path.write_text(
        json.dumps(
            coco_dataset([("a.png", (H, W)), ("b.png", (H, W))], [instances, Instances((H, W))], ["o"])
        )
    )
    coco = COCO(str(path))
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    np.testing.assert_array_equal(coco.annToMask(annotation), square_mask())
    assert annotation["bbox"] == [5, 5, 10, 10]
    assert (annotation["area"], annotation["score"], annotation["category_id"]) == (100, 0.25, 1)
    assert coco.getAnnIds(imgIds=[2]) == []


@given(mask=arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_run_lengths_of_any_mask_equal_those_of_pycocotools(mask):
    reference = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert numbers_to_counts(mask).get(1, reference) == reference
    runs = counts_to_runs(reference)
    assert runs_to_counts(runs, mask.shape) == reference


@given(text=st.text(st.characters(min_codepoint=40, max_codepoint=130), max_size=20))
def test_any_string_is_a_whole_mask_or_refused(text):
    try:
        counts = runs_to_counts(counts_to_runs(text), (30, 40))
    except ValueError:
        return
    mask = coco_mask.decode({"size": [30, 40], "counts": counts})
    assert mask.shape == (30, 40)
    assert runs_to_counts(counts_to_runs(counts), (30, 40)) == counts
