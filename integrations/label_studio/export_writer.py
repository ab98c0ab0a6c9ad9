"""Labels and predictions as a file that Label Studio imports."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from labelloop.errors import OutputError
from labelloop.instances import Instances
from labelloop.integrations.label_studio.labelling_config import ControlNames
from labelloop.integrations.label_studio.regions import SCORE_DIGITS, to_regions
from labelloop.whole_files import replacing

MODEL_VERSION = "labelloop"  # where no run is named

_CONTROLS = ControlNames(image="image", polygon="polygon", brush="brush")  # as in labelling_config


def write_export(
    path: Path,
    images: Iterable[tuple[str, Instances | None, Instances | None]],
    classes: Sequence[str],
    *,
    model_version: str = MODEL_VERSION,
) -> None:
    """Writes a list of tasks that Label Studio imports; the file appears whole or not at all.

    A task names its image as a file under the server's folder of local files: the server shows it once a
    local storage covers that folder. Masks without a hole and of one part become polygons that agree to an
    IoU of 0.98 or more; the others stay as they are.

    Args:
        path: The JSON file.
        images: File name (relative, with forward slashes), annotation or None, and prediction or None, of
            each image; read one by one. An annotation without objects says that the image is empty.
        classes: Class names by label.
        model_version: What Label Studio shows as the model of the predictions.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.write("[")
            for number, (name, annotation, prediction) in enumerate(images):
                task = _task(name, annotation, prediction, classes, model_version)
                file.write((", " if number else "") + json.dumps(task, ensure_ascii=False))
            file.write("]")
    except OSError as error:
        raise OutputError(
            f"the tasks cannot be written ({error.strerror or error})",
            value=path,
            way_out="Make room or choose another place.",
        ) from error


def _task(
    name: str,
    annotation: Instances | None,
    prediction: Instances | None,
    classes: Sequence[str],
    model_version: str,
) -> dict[str, Any]:
    task: dict[str, Any] = {
        "data": {"image": f"/data/local-files/?d={quote(name)}"},
        "annotations": [],
        "predictions": [],
    }
    if annotation is not None:
        result = to_regions(annotation, _keys(annotation), classes, _CONTROLS)
        task["annotations"].append({"result": result, "was_cancelled": False, "ground_truth": False})
    if prediction is not None:
        predicted: dict[str, Any] = {
            "result": to_regions(prediction, _keys(prediction), classes, _CONTROLS),
            "model_version": model_version,
        }
        if prediction.scores is not None and len(prediction):
            predicted["score"] = round(float(prediction.scores.mean()), SCORE_DIGITS)
        task["predictions"].append(predicted)
    return task


def _keys(instances: Instances) -> list[str]:
    return [f"object-{i}" for i in range(1, len(instances) + 1)]
