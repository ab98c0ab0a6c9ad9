"""Two COCO files are evaluated as the images and objects they hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelloop.errors import FormatError
from labelloop.formats.coco import read_coco
from labelloop.metrics.files import evaluate_pair, read_pair
from labelloop.metrics.panel import Panel

SIZE = {"height": 40, "width": 50}
Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(name: str, document: Any) -> Path:
        path = tmp_path / name
        path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        return path

    return to_file


def square(left: int, top: int, side: int = 10) -> list[list[int]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


def annotation(image_id: Any, segmentation: Any, category_id: Any = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "segmentation": segmentation, **more}


def coco(images: dict[Any, str], annotations: list[Any], categories: Any = None) -> dict[str, Any]:
    """A COCO dataset of images of one size."""
    return {
        "images": [{"id": id_, "file_name": name, **SIZE} for id_, name in images.items()],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "organoid"}] if categories is None else categories,
    }


def evaluate_files(predictions: Path, labels: Path, *, min_score: float = 0.5) -> Panel:
    return evaluate_pair(read_pair(predictions, labels), min_score=min_score)


LABELS = coco({1: "a.png", 2: "b.png"}, [annotation(1, square(5, 5)), annotation(2, square(20, 20))])


def value(panel: Panel, name: str) -> float | None:
    return panel.metrics[name].value


def test_images_are_matched_by_file_name_not_by_id(write: Write) -> None:
    swapped = coco({1: "b.png", 2: "a.png"}, [annotation(1, square(20, 20)), annotation(2, square(5, 5))])
    panel = evaluate_files(write("p.json", swapped), write("l.json", LABELS))
    assert value(panel, "coco_ap") == value(panel, "f1_50") == 1.0
    assert panel.n_images == 2
    assert not any("left out" in note for note in panel.notes)


def test_folders_in_names_may_differ(write: Write) -> None:
    elsewhere = coco({7: "out\\a.png", 8: "/data/b.png"}, [annotation(7, square(5, 5), score=0.9)])
    panel = evaluate_files(write("p.json", elsewhere), write("l.json", LABELS))
    assert value(panel, "recall_50") == 0.5


@pytest.mark.parametrize(
    ("predicted", "labelled"),
    [("out\\a.png", "out/a.png"), ("caf\u00e9/a.png", "cafe\u0301/a.png"), ("\u00e9.png", "e\u0301.png")],
)
def test_names_that_only_systems_tell_apart_are_one(write: Write, predicted: str, labelled: str) -> None:
    sides = [
        coco({1: name, 2: f"other/{name}"}, [annotation(1, square(5, 5), score=0.9)])
        for name in (predicted, labelled)
    ]
    panel = evaluate_files(write("p.json", sides[0]), write("l.json", sides[1]))
    assert value(panel, "recall_50") == 1.0
    twice = coco({1: predicted, 2: labelled}, [])
    with pytest.raises(FormatError, match="one file name"):
        evaluate_files(write("p.json", sides[0]), write("l.json", twice))


@pytest.mark.parametrize("as_results", [True, False])
@pytest.mark.parametrize(("here", "there"), [(int, float), (float, int), (int, str), (str, float)])
def test_ids_are_numbers_however_they_are_written(
    write: Write, here: type, there: type, as_results: bool
) -> None:
    def renumbered(document: Any, to: type) -> Any:
        for entry in (*document["images"], *document["categories"]):
            entry["id"] = to(entry["id"])
        return document

    def found(to: type) -> list[dict[str, Any]]:
        text = (lambda number: str(int(number))) if to is str else to
        at = ((1, square(5, 5)), (2, square(20, 20)))
        return [annotation(text(image_id), where, text(1), score=0.9) for image_id, where in at]

    labels = renumbered(coco({1: "a.png", 2: "b.png"}, found(int)), here)
    results: Any = found(there)
    if not as_results:
        results = renumbered(coco({1: "a.png", 2: "b.png"}, results), int)
    panel = evaluate_files(write("p.json", results), write("l.json", labels))
    assert value(panel, "recall_50") == value(panel, "coco_ap") == 1.0


def test_equal_scores_rank_images_by_their_ids_as_pycocotools_does(write: Write) -> None:
    labels = coco({10: "b.png", 2: "a.png"}, [annotation(2, square(5, 5))])
    results = [annotation(10, square(20, 20), score=0.9), annotation(2, square(5, 5), score=0.9)]
    labels_file, results_file = write("l.json", labels), write("p.json", results)
    assert value(evaluate_files(results_file, labels_file), "coco_ap") == 1.0
    assert read_pair(results_file, labels_file).names == ("a.png", "b.png")


@pytest.mark.parametrize("more", [{}, {"score": None}], ids=["missing", "null"])
@pytest.mark.parametrize("as_results", [True, False])
def test_predictions_may_all_be_without_scores(write: Write, more: dict[str, Any], as_results: bool) -> None:
    found = [annotation(1, square(5, 5), **more), annotation(2, square(20, 20), **more)]
    document = found if as_results else coco({1: "a.png", 2: "b.png"}, found)
    panel = evaluate_files(write("p.json", document), write("l.json", LABELS), min_score=0.9)
    assert value(panel, "f1_50") == value(panel, "coco_ap") == 1.0
    assert panel.metrics["detection_ece"].reason == "the predictions have no scores"
    assert any("coco_ap* ranks nothing" in note for note in panel.notes)


@pytest.mark.parametrize("more", [{}, {"score": None}], ids=["missing", "null"])
def test_predictions_without_a_score_among_others_count_as_1_and_are_noted(
    write: Write, more: dict[str, Any]
) -> None:
    found = [annotation(1, square(5, 5), score=0.4), annotation(2, square(20, 20), **more)]
    panel = evaluate_files(write("p.json", found), write("l.json", LABELS), min_score=0.9)
    assert value(panel, "recall_50") == 0.5
    assert "predictions: 1 without a score among others counts as 1" in panel.notes
    assert not any("ranks nothing" in note for note in panel.notes)


def test_the_scores_of_labels_do_not_matter(write: Write) -> None:
    labels = coco({1: "a.png"}, [annotation(1, square(5, 5), score=None)])
    panel = evaluate_files(write("p.json", [annotation(1, square(5, 5), score=0.9)]), write("l.json", labels))
    assert value(panel, "recall_50") == 1.0


def test_scores_in_percent_rank_but_are_no_probabilities(write: Write) -> None:
    results = [annotation(2, square(20, 20), score=80), annotation(1, square(5, 5), score=0.5)]
    panel = evaluate_files(write("p.json", results), write("l.json", LABELS))
    assert value(panel, "coco_ap") == 1.0
    error = panel.metrics["detection_ece"]
    assert (error.value, error.low, error.reason) == (None, None, "scores are not between 0 and 1")


def test_an_image_without_predictions_counts_and_is_noted(write: Write) -> None:
    one = coco({1: "a.png"}, [annotation(1, square(5, 5), score=0.9)])
    panel = evaluate_files(write("p.json", one), write("l.json", LABELS))
    assert value(panel, "recall_50") == 0.5
    assert panel.n_images == 2
    assert "1 of 2 images have no predictions" in panel.notes


def test_an_image_whose_predictions_are_all_left_out_is_not_said_to_have_none(write: Write) -> None:
    found = [annotation(1, square(5, 5), score=0.9), annotation(2, square(20, 20), score=0.9, category_id=7)]
    panel = evaluate_files(write("p.json", found), write("l.json", LABELS))
    assert "1 of 2 images have no usable predictions" in panel.notes


def test_predictions_on_unknown_images_are_reported_and_left_out(write: Write) -> None:
    more = coco(
        {1: "a.png", 2: "b.png", 3: "c.png"},
        [annotation(i, square(*at)) for i, at in ((1, (5, 5)), (2, (20, 20)), (3, (0, 0)))],
    )
    panel = evaluate_files(write("p.json", more), write("l.json", LABELS))
    assert value(panel, "precision_50") == 1.0
    assert any("c.png" in note for note in panel.notes)
    assert any("left out 1 in images that the labels do not hold" in note for note in panel.notes)


def test_a_bare_list_of_results_uses_the_ids_of_the_labels(write: Write) -> None:
    results = [annotation(2, square(20, 20), score=0.8), annotation(1, square(5, 5), score=0.7)]
    panel = evaluate_files(write("p.json", results), write("l.json", LABELS))
    assert value(panel, "coco_ap") == 1.0


def test_no_results_at_all_are_no_predictions(write: Write) -> None:
    panel = evaluate_files(write("p.json", []), write("l.json", LABELS))
    assert value(panel, "recall_50") == 0.0
    assert panel.metrics["precision_50"].reason is not None


@pytest.mark.parametrize(
    "categories",
    [
        pytest.param([{"id": 5, "name": "debris"}, {"id": 9, "name": "organoid"}], id="by name"),
        pytest.param([{"id": 9}], id="the only one"),
    ],
)
def test_classes_are_matched(write: Write, categories: list[dict[str, Any]]) -> None:
    predicted = coco({1: "a.png"}, [annotation(1, square(5, 5), 9, score=0.9)], categories)
    panel = evaluate_files(write("p.json", predicted), write("l.json", LABELS))
    assert value(panel, "recall_50") == 0.5


def test_classes_without_names_are_matched_by_id(write: Write) -> None:
    labels = coco({1: "a.png"}, [annotation(1, square(5, 5), 3), annotation(1, square(25, 5), 4)], [])
    predicted = coco({1: "a.png"}, [annotation(1, square(5, 5), 3), annotation(1, square(25, 5), 3)], [])
    assert value(evaluate_files(write("p.json", predicted), write("l.json", labels)), "recall_50") == 0.5


@pytest.mark.parametrize(
    ("predicted", "labelled", "noted"),
    [
        pytest.param({1: "cell"}, {1: "organoid"}, "as cell with organoid, by their ids", id="other words"),
        pytest.param({1: "Organoid"}, {1: "organoid"}, "as Organoid with organoid, by their ids", id="case"),
        pytest.param({4: "cell"}, {1: "organoid"}, "as cell with organoid, the only ones", id="the only one"),
        pytest.param({1: "a", 2: "b"}, {1: "c", 2: "d"}, "as a with c, b with d, by their ids", id="several"),
        pytest.param({1: "organoid"}, {1: "organoid"}, None, id="same"),
        pytest.param({2: "organoid", 1: "debris"}, {1: "organoid"}, None, id="one is the same"),
        pytest.param({1: None}, {1: "organoid"}, None, id="no names to compare"),
    ],
)
def test_classes_of_other_names_are_matched_with_a_note(
    write: Write, predicted: dict[int, str | None], labelled: dict[int, str], noted: str | None
) -> None:
    def named(names: dict[int, Any]) -> list[dict[str, Any]]:
        return [{"id": id_} | ({} if name is None else {"name": name}) for id_, name in names.items()]

    found = annotation(1, square(5, 5), next(iter(predicted)), score=0.9)
    sides = coco({1: "a.png"}, [found], named(predicted)), coco({1: "a.png"}, [], named(labelled))
    sides[1]["annotations"] = [{"id": 0, **annotation(1, square(5, 5))}]
    panel = evaluate_files(write("p.json", sides[0]), write("l.json", sides[1]))
    assert value(panel, "recall_50") == 1.0
    notes = [note for note in panel.notes if "name" in note]
    assert notes == ([] if noted is None else [f"the two files share no class name: matched {noted}"])


def test_classes_that_the_labels_lack_are_left_out_and_noted(write: Write) -> None:
    categories = [{"id": 1, "name": "organoid"}, {"id": 2, "name": "person"}]
    predicted = coco({1: "a.png"}, [annotation(1, square(5, 5)), annotation(1, square(25, 5), 2)], categories)
    panel = evaluate_files(write("p.json", predicted), write("l.json", LABELS))
    assert value(panel, "precision_50") == 1.0
    assert panel.notes[-1] == "predictions: left out 1 of classes that the labels do not hold"


def test_run_lengths_of_either_kind_are_polygons_pixels(write: Write) -> None:
    uncompressed = {"size": [40, 50], "counts": [5 * 40 + 5, 10, *[30, 10] * 9]}
    uncompressed["counts"].append(40 * 50 - sum(uncompressed["counts"]))
    panel = evaluate_files(
        write("p.json", [annotation(1, uncompressed, score=0.9)]),
        write("l.json", coco({1: "a.png"}, [annotation(1, square(5, 5))])),
    )
    assert value(panel, "sq") == 1.0


@pytest.mark.parametrize(
    "segmentation",
    [
        pytest.param(None, id="none"),
        pytest.param([], id="empty"),
        pytest.param([[1, 1, 5, 5]], id="two corners"),
        pytest.param([[1, 1, 5, 5, float("nan"), 3]], id="NaN"),
        pytest.param([[-20, -20, -10, -20, -10, -10]], id="outside the image"),
        pytest.param({"size": [50, 40], "counts": [2000]}, id="size turned"),
        pytest.param({"size": [40, 50], "counts": [7, 7]}, id="runs too short"),
        pytest.param({"size": [40, 50], "counts": "\u00fc~"}, id="no run lengths"),
        pytest.param({"size": [40, 50], "counts": "0oooo"}, id="broken off"),
        pytest.param("mask.png", id="text"),
    ],
)
def test_objects_without_a_usable_mask_are_noted_and_left_out(write: Write, segmentation: Any) -> None:
    results = [annotation(1, square(5, 5), score=0.9), annotation(1, segmentation, score=0.9)]
    panel = evaluate_files(write("p.json", results), write("l.json", LABELS))
    assert value(panel, "precision_50") == 1.0
    assert any("left out 1 without a usable mask" in note for note in panel.notes)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_predictions_of_which_none_has_a_usable_mask_are_an_error(write: Write, as_dataset: bool) -> None:
    boxes = [{"image_id": id_, "category_id": 1, "bbox": [5, 5, 10, 10], "score": 0.9} for id_ in (1, 2, 2)]
    document = coco({1: "a.png", 2: "b.png"}, boxes) if as_dataset else boxes
    with pytest.raises(FormatError, match=r"none of the 3 predictions .* has a usable mask") as caught:
        read_pair(write("p.json", document), write("l.json", LABELS))
    assert "p.json" in caught.value.value
    assert "segmentation" in caught.value.way_out


@pytest.mark.parametrize("as_dataset", [False, True])
def test_a_file_without_predictions_is_measured_as_having_found_nothing(
    write: Write, as_dataset: bool
) -> None:
    document = coco({1: "a.png", 2: "b.png"}, []) if as_dataset else []
    panel = evaluate_files(write("p.json", document), write("l.json", LABELS))
    assert value(panel, "coco_ap") == value(panel, "recall_50") == 0.0


@pytest.mark.parametrize("mark", ["iscrowd", "ignore"])
def test_crowds_and_ignored_objects_are_neither_hits_nor_misses(write: Write, mark: str) -> None:
    labels = coco({1: "a.png"}, [annotation(1, square(5, 5)), annotation(1, square(25, 5), **{mark: 1})])
    results = [annotation(1, square(5, 5), score=0.9), annotation(1, square(26, 6, 5), score=0.95)]
    panel = evaluate_files(write("p.json", results), write("l.json", labels))
    assert value(panel, "f1_50") == value(panel, "coco_ap") == 1.0


def brush(image_id: int, left: int, top: int, **more: Any) -> dict[str, Any]:
    """A mask of 10 x 10 px as CVAT writes it: uncompressed run lengths that are called a crowd."""
    counts = [left * 40 + top, *[10, 30] * 9, 10]
    runs = {"size": [40, 50], "counts": [*counts, 40 * 50 - sum(counts)]}
    return annotation(image_id, runs, iscrowd=1, **more)


@pytest.mark.parametrize(
    "marks",
    [
        pytest.param([{"attributes": {"occluded": False}}, {"attributes": {}}], id="attributes"),
        pytest.param([{}, {}], id="nothing but crowds"),
    ],
)
def test_masks_that_a_tool_calls_crowds_are_objects_as_in_add_labels(
    write: Write, tmp_path: Path, marks: list[dict[str, Any]]
) -> None:
    brushed = [brush(1, 5, 5, **marks[0]), brush(2, 20, 20, **marks[1])]
    labels = write("l.json", coco({1: "a.png", 2: "b.png"}, brushed))
    assert [r.instances.crowd.tolist() for r in read_coco(labels).records] == [[False], [False]]
    panel = evaluate_files(write("p.json", [annotation(1, square(5, 5), score=0.9)]), labels)
    assert value(panel, "recall_50") == 0.5


def test_crowds_beside_objects_stay_crowds_as_in_add_labels(write: Write) -> None:
    labels = write("l.json", coco({1: "a.png"}, [annotation(1, square(5, 5)), brush(1, 20, 20)]))
    assert read_coco(labels).records[0].instances.crowd.tolist() == [False, True]
    panel = evaluate_files(write("p.json", [annotation(1, square(5, 5), score=0.9)]), labels)
    assert value(panel, "recall_50") == 1.0


WIDER = {"images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 60}], "annotations": []}
SIZELESS = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        pytest.param("{", LABELS, "not JSON", id="broken JSON"),
        pytest.param('"text"', LABELS, "not a COCO dataset", id="no dataset"),
        pytest.param([1, 2], LABELS, "not a list of objects", id="list of numbers"),
        pytest.param({"images": [3]}, LABELS, "no id or no file_name", id="no picture"),
        pytest.param({"images": [], "annotations": 3}, LABELS, "not a list of objects", id="no annotations"),
        pytest.param(coco({1: "x.png"}, []), LABELS, "share no image", id="other names"),
        pytest.param([annotation(77, square(5, 5))], LABELS, "share no image", id="other ids"),
        pytest.param([annotation(1, square(5, 5), score="high")], LABELS, "finite number", id="text score"),
        pytest.param([annotation(1, square(5, 5), score=1e999)], LABELS, "finite number", id="infinite"),
        pytest.param([annotation(1, square(5, 5), score=1e39)], LABELS, "finite number", id="no float32"),
        pytest.param([annotation(1, square(5, 5), score=10**400)], LABELS, "finite number", id="huge"),
        pytest.param(WIDER, LABELS, "(40, 60)", id="another size"),
        pytest.param([], SIZELESS, "no height or width", id="labels without sizes"),
        pytest.param([], coco({1: "a.png", 2: "a.png"}, []), "one file name", id="one name twice"),
    ],
)
def test_what_cannot_be_read_is_named(write: Write, predictions: Any, labels: Any, message: str) -> None:
    with pytest.raises(FormatError) as raised:
        evaluate_files(write("p.json", predictions), write("l.json", labels))
    assert message in str(raised.value)


def test_a_missing_file_is_named(write: Write, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere\.json"):
        evaluate_files(tmp_path / "nowhere.json", write("l.json", LABELS))
