"""Project: a folder with labelloop.toml and a ledger."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import func, select

from labelloop.errors import ProjectError, UsageError
from labelloop.instances import Instances
from labelloop.paths import plain_path
from labelloop.project.classes import hold_classes
from labelloop.project.config import FILE_NAME, LabelStudioConfig, ProjectConfig, read_config, write_config
from labelloop.project.ledger import Ledger, decode_instances, rows_with, sqlite_url
from labelloop.project.places import Places
from labelloop.project.tables import ImageRow, LabelRow, RunRow, is_newest_label, now

SPLITS = ("train", "val", "test")


class ImageRecord(NamedTuple):
    """What the ledger knows of one image; light, so that a pool of 100,000 is listed in seconds.

    ``path`` is absolute. ``channel`` -1 means all of a gray or RGB image. A ``replaced`` one is
    used no more, as its path holds another file.
    """

    id: int
    path: Path
    file_name: str
    size_hw: tuple[int, int]
    split: str
    group: str | None
    page: int
    channel: int
    pixel_size_um: float | None
    sha256: str
    replaced: bool = False


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One training run as the ledger knows it."""

    name: str
    state: str
    method: str
    model: str
    seed: int
    promoted: str | None
    config: dict[str, Any]
    result: dict[str, Any] | None


class Project:
    """A project on disk. ``Project.init`` makes one, ``Project.find`` opens the nearest one.

    Attributes:
        root: The project's folder, absolute.
        config: labelloop.toml.
        ledger: The database.
    """

    def __init__(self, root: Path, config: ProjectConfig, ledger: Ledger) -> None:
        self.root = root
        self.config = config
        self.ledger = ledger

    @classmethod
    def init(cls, root: Path, config: ProjectConfig) -> Project:
        """Makes a project in a new or empty folder, or in one that holds no project yet.

        Raises:
            ProjectError: There is a project already, the folder cannot be written, or its ledger cannot be
                used or has labels of other classes.
        """
        root = plain_path(root)
        if (root / FILE_NAME).exists():
            raise ProjectError(
                "there is already a project", value=root, way_out="Use it with -C, or choose another folder."
            )
        try:
            (root / ".labelloop").mkdir(parents=True, exist_ok=True)
            ledger = Ledger(sqlite_url(root / ".labelloop" / "ledger.db"))
            ledger.create()
            ledger.check()
            hold_classes(ledger, config.classes)  # the ledger may be an old one
            write_config(root / FILE_NAME, config)
        except OSError as error:
            raise ProjectError(
                f"the project cannot be made ({error.strerror})",
                value=root,
                way_out="Choose a folder you can write.",
            ) from error
        return cls(root, config, ledger)

    @classmethod
    def open(cls, root: Path) -> Project:
        """Opens the project in this very folder.

        Raises:
            ProjectError: There is none, its files cannot be used, or classes that have labels were changed.
        """
        root = plain_path(root)
        if not (root / FILE_NAME).is_file():
            raise ProjectError("there is no project here", value=root, way_out=_MAKE_ONE)
        config = read_config(root / FILE_NAME)
        path = root / ".labelloop" / "ledger.db"
        if not path.is_file():
            raise ProjectError(
                "the project has lost its ledger", value=path, way_out="Restore it from a backup."
            )
        ledger = Ledger(sqlite_url(path))
        ledger.check()
        hold_classes(ledger, config.classes)
        return cls(root, config, ledger)

    @classmethod
    def find(cls, start: Path) -> Project:
        """Opens the nearest project from ``start`` upward, as git does.

        Raises:
            ProjectError: There is none, or its files cannot be used.
        """
        start = plain_path(start)
        for folder in (start, *start.parents):
            if (folder / FILE_NAME).is_file():
                return cls.open(folder)
        raise ProjectError("there is no labelloop project here or above", value=start, way_out=_MAKE_ONE)

    def program(self, folder: Path) -> str:
        """How commands for this project begin in a shell that is in ``folder``: with its -C elsewhere."""
        inside = self.root in (folder, *folder.parents)
        return "labelloop" if inside else f"labelloop -C {shlex.quote(str(self.root))}"

    def resume_command(self, run: str, folder: Path) -> str:
        """What continues a run, typed in ``folder``."""
        return f"{self.program(folder)} train --resume --name {shlex.quote(run)}"

    @property
    def runs_dir(self) -> Path:
        """Where the runs keep their files."""
        return self.root / "runs"

    @property
    def curves_dir(self) -> Path:
        """Where the pictures of forecasts lie."""
        return self.root / "forecast"

    @property
    def cache_dir(self) -> Path:
        """Where things lie that can be computed again."""
        return self.root / ".labelloop" / "cache"

    def read_settings(self) -> None:
        """Takes over what was changed in labelloop.toml since the project was opened.

        Raises:
            ProjectError: The file cannot be read, or classes that have labels were changed; the settings stay
                as they were.
        """
        config = read_config(self.root / FILE_NAME)
        hold_classes(self.ledger, config.classes)
        self.config = config

    def set_classes(self, classes: tuple[str, ...]) -> None:
        """Writes the class names into labelloop.toml."""
        self._write(self.config.model_copy(update={"classes": classes}))

    def set_label_studio(self, settings: LabelStudioConfig) -> None:
        """Writes into labelloop.toml where reviews take place."""
        self._write(read_config(self.root / FILE_NAME).model_copy(update={"label_studio": settings}))

    def _write(self, config: ProjectConfig) -> None:
        """Writes the settings, which hold from when the file has them."""
        write_config(self.root / FILE_NAME, config)
        self.config = config

    def images(
        self, *, split: str | None = None, labelled: bool | None = None, replaced: bool = False
    ) -> list[ImageRecord]:
        """The images in the order they were added.

        Args:
            split: Only this split: train, val or test.
            labelled: Only those with labels (True) or without (False).
            replaced: Also those whose paths hold other files now.
        """
        statement = select(
            ImageRow.id, ImageRow.path, ImageRow.file_name, ImageRow.height, ImageRow.width, ImageRow.split,
            ImageRow.group, ImageRow.page, ImageRow.channel, ImageRow.pixel_size_um, ImageRow.sha256,
            ImageRow.replaced_at.is_not(None),
        ).order_by(ImageRow.id)  # fmt: skip
        if split is not None:
            statement = statement.where(ImageRow.split == split)
        if labelled is not None:
            has_labels = ImageRow.id.in_(select(LabelRow.image_id))
            statement = statement.where(has_labels if labelled else ~has_labels)
        if not replaced:
            statement = statement.where(ImageRow.replaced_at.is_(None))
        with self.ledger.read() as session:
            rows = session.execute(statement).all()
        return [
            ImageRecord(id_, self.root / path, name, (height, width), in_split, *rest)
            for id_, path, name, height, width, in_split, *rest in rows
        ]

    def labels(self, image_ids: Collection[int]) -> dict[int, Instances]:
        """The newest labels of these images, by image id; images without labels are not in it."""
        return {image_id: labels for image_id, _, labels in self.iter_labels(image_ids)}

    def iter_labels(self, image_ids: Collection[int]) -> Iterator[tuple[int, int, Instances]]:
        """(image id, revision, labels) of these images, newest revision, one at a time."""
        statement = (
            select(LabelRow.image_id, LabelRow.revision, LabelRow.instances)
            .where(is_newest_label())
            .order_by(LabelRow.image_id)
        )
        with self.ledger.read() as session:
            rows = rows_with(session, statement, LabelRow.image_id, sorted(set(image_ids)))
            for image_id, revision, stored in rows:
                yield image_id, revision, decode_instances(stored)

    def label_sources(self, *, split: str) -> list[str]:
        """Where label revisions of a split's images came from: ``format:path``, each once, sorted."""
        statement = (
            select(LabelRow.source)
            .join(ImageRow, ImageRow.id == LabelRow.image_id)
            .where(ImageRow.split == split, ImageRow.replaced_at.is_(None))
            .distinct()
            .order_by(LabelRow.source)
        )
        with self.ledger.read() as session:
            return list(session.scalars(statement))

    def labels_at(self, revisions: Mapping[int, int]) -> dict[int, Instances]:
        """The labels of these images at these revisions, by image id."""
        statement = select(LabelRow.image_id, LabelRow.revision, LabelRow.instances)
        with self.ledger.read() as session:
            rows = rows_with(session, statement, LabelRow.image_id, sorted(revisions))
            return {
                i: decode_instances(stored) for i, revision, stored in rows if revisions.get(i) == revision
            }

    def stored_path(self, path: Path, places: Places) -> str:
        """How the ledger keeps a path: relative inside the project, so that a project can be moved.

        Args:
            path: Of a file.
            places: Follows the links that may lead inside.
        """
        absolute = path.absolute()
        if absolute.is_relative_to(self.root):
            return str(absolute.relative_to(self.root))
        real, root = Path(places.of(absolute)), places.of_folder(self.root)
        return str(real.relative_to(root)) if real.is_relative_to(root) else str(absolute)

    def runs(self) -> list[RunRecord]:
        """All runs, oldest first."""
        with self.ledger.read() as session:
            rows = session.scalars(select(RunRow).order_by(RunRow.started_at, RunRow.name)).all()
        return [_run_record(row) for row in rows]

    def run_there(self, name: str) -> bool:
        """Whether the run's folder still lies there."""
        return (self.runs_dir / name).is_dir()

    def finished_runs(self, *, deleted: bool = False) -> list[RunRecord]:
        """The runs whose models can be used, in the order in which they finished.

        Args:
            deleted: Also those whose folders were deleted.
        """
        ended = func.coalesce(RunRow.finished_at, RunRow.started_at)
        statement = select(RunRow).where(RunRow.state == "finished").order_by(ended, RunRow.name)
        with self.ledger.read() as session:
            rows = session.scalars(statement).all()
        return [_run_record(row) for row in rows if deleted or self.run_there(row.name)]

    def unfinished_runs(self) -> list[RunRecord]:
        """The runs that can go on, oldest first: not those whose folders were deleted."""
        return [run for run in self.runs() if run.state != "finished" and self.run_there(run.name)]

    def run(self, name: str | None = None) -> RunRecord:
        """The run of this name, or the one that finished last and is still there.

        Raises:
            UsageError: There is no such run.
            ProjectError: No run has finished, or none of them is there.
        """
        if name is None:
            finished = self.finished_runs()
            if not finished:
                raise ProjectError("no run has finished yet", value=self.root, way_out="Run labelloop train.")
            return finished[-1]
        runs = self.runs()
        for run in runs:
            if run.name == name:
                return run
        known = ", ".join(run.name for run in runs) or "none"
        raise UsageError("there is no such run", value=name, way_out=f"Runs here: {known}.")

    def save_run(self, run: RunRecord) -> None:
        """Stores a run, new or changed, in one transaction."""
        with self.ledger.write() as session:
            row = session.get(RunRow, run.name)
            if row is None:
                row = RunRow(name=run.name)
                session.add(row)
            row.state, row.method, row.model, row.seed = run.state, run.method, run.model, run.seed
            row.promoted, row.config, row.result = run.promoted, run.config, run.result
            if run.state == "finished" and row.finished_at is None:
                row.finished_at = now()

    def newest_label_revisions(self, image_ids: Iterable[int]) -> dict[int, int]:
        """The newest label revision of each labelled image, by image id."""
        wanted = set(image_ids)
        statement = select(LabelRow.image_id, func.max(LabelRow.revision)).group_by(LabelRow.image_id)
        with self.ledger.read() as session:
            return {i: revision for i, revision in session.execute(statement).all() if i in wanted}


_MAKE_ONE = "Make one with labelloop init DIR, or name one with --project DIR."


def _run_record(row: RunRow) -> RunRecord:
    return RunRecord(
        name=row.name,
        state=row.state,
        method=row.method,
        model=row.model,
        seed=row.seed,
        promoted=row.promoted,
        config=row.config,
        result=row.result,
    )
