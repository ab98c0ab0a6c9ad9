"""One prediction by several processes: each predicts its share into a store of its own.

The process that leads takes these stores over, also those of processes that were killed, and then goes
through all images itself: what is left, such as a file that cannot be read, is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labelloop.errors import ProjectError
from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import InstanceModel
from labelloop.predict.items import PredictItem
from labelloop.predict.names import output_stems
from labelloop.predict.reading import Outputs, Reader
from labelloop.predict.store import FileStamp, PredictionStore, image_key, model_key
from labelloop.predict.tiles import TileLayout
from labelloop.predict.work import Work
from labelloop.progress import Progress, Silent
from labelloop.team import Team


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What is shared out.

    Attributes:
        images: All of a call.
        left: Indices of those that are not done, an image that is there twice once.
        outputs: Where the files go.
        layout: How large images are cut.
    """

    images: Sequence[PredictItem]
    left: Sequence[int]
    outputs: Outputs
    layout: TileLayout


def left_to_do(reader: Reader, images: Sequence[PredictItem]) -> list[int]:
    """Indices of the images that have no prediction yet, or lack a file, largest ones last."""
    stems = output_stems([item.name for item in images])
    left, seen = [], set()
    for index in sorted(range(len(images)), key=lambda i: images[i].size_hw or (0, 0)):
        item = images[index]
        place = (item.path, item.page, item.channel)
        if place not in seen and not _is_done(reader, item, stems[index]):
            left.append(index)
        seen.add(place)
    return left


def _is_done(reader: Reader, item: PredictItem, stem: str) -> bool:
    try:
        sha256 = reader.store.known_hash(item.path, FileStamp.of(item.path))
    except OSError:
        return True  # the leader says so
    if sha256 is None:
        return False
    key = image_key(sha256, item.page, item.channel)
    return key in reader.store.images and not reader.missing(stem, key)


def predict_shares(
    shares: Shares | None, model: InstanceModel, stats: DataStats, progress: Progress, team: Team
) -> int:
    """Predicts this process's share.

    Args:
        shares: The leader's; the others are told.
        model: On this process's device.
        stats: What the model was fitted to.
        progress: Told about every image of this share.
        team: The processes.

    Returns:
        Images that the model looked at, in all processes.

    Raises:
        ProjectError: A process has another model than the one that leads.
    """
    told = team.tell(shares)
    assert told is not None  # the leader's
    if team.any(model_key(model, stats, told.layout) != told.outputs.model):
        raise ProjectError(
            "the processes do not have the same model",
            value=told.outputs.out,
            way_out="Wait until the run's files no longer change where all processes see them, then run the"
            " same command again.",
        )
    with team.apart(), PredictionStore(told.outputs.out, told.outputs.model, part=team.rank) as store:
        reader = Reader(store=store, stats=stats, layout=told.layout, outputs=told.outputs)
        work = Work(store=store, model=model, reader=reader, progress=progress)
        work.run(told.images, team.share(told.left))
    return sum(team.gather(work.predicted))


def help_predict(model: InstanceModel, stats: DataStats, team: Team) -> None:
    """The part of a process that does not lead."""
    predict_shares(None, model, stats, Silent(), team)
