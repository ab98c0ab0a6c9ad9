"""Which images of the ledger the files of an act are, and which images they replace."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from labelloop.progress import Progress
from labelloop.project.ledger import rows_with, scalars_with
from labelloop.project.places import Places
from labelloop.project.project import Project
from labelloop.project.reading import ReadFile
from labelloop.project.recorded import is_at, look_at
from labelloop.project.tables import ImageRow, LabelRow, now


def look_at_known(project: Project, files: Sequence[ReadFile], progress: Progress) -> None:
    """Reads the files at other paths of the images that these files are, before the ledger is locked.

    Args:
        project: Whose ledger.
        files: All that an act has read.
        progress: Is told of each file that is read.
    """
    places = Places()
    found = {places.of(file.path) for file in files}
    columns = select(ImageRow.path).where(ImageRow.replaced_at.is_(None)).order_by(ImageRow.id)
    with project.ledger.read() as session:
        stored = scalars_with(session, columns, ImageRow.sha256, _contents(files))
        paths = [project.root / path for path in stored]
    look_at([path for path in paths if places.of(path) not in found], progress)


class KnownImages:
    """The images of an act that the ledger has, and those that the act adds to it.

    Files are recognised by their content. All pages and channels of a file get its path where their own does
    not lead to that content any more, and are used again if they were replaced. Afterwards an image whose
    path leads to other content is replaced; what comes in its place gets its split and its group, unless the
    act says otherwise.

    Args:
        project: Whose ledger.
        session: Of the act.
        files: All that the act has read.

    Attributes:
        ids: Of the images of these files that the ledger had.
        added: How many images the act has added.
        moved: How many it has moved to another split.
        replaced: How many its files have replaced.
    """

    def __init__(self, project: Project, session: Session, files: Sequence[ReadFile]) -> None:
        self._project, self._session = project, session
        self._places = Places()
        self._found = {self._places.of(file.path): file.sha256 for file in files}
        self._rows: dict[str, list[ImageRow]] = {}
        self.added = self.moved = 0
        rows = select(ImageRow).order_by(ImageRow.id)
        for row in scalars_with(session, rows, ImageRow.sha256, _contents(files)):
            self._rows.setdefault(row.sha256, []).append(row)
        self.ids = [row.id for rows in self._rows.values() for row in rows]
        self._old = set(self.ids)
        for file in files:
            self._renew(file)
        self._left: dict[str, ImageRow] = {}  # replaced images, by the place that they left
        self.replaced = self._replace({file.path.name for file in files})

    def of_file(self, file: ReadFile) -> list[ImageRow]:
        """All pages and channels of this file."""
        return self._rows.get(file.sha256, [])

    def exact(self, image: ReadFile) -> list[ImageRow]:
        """The rows of this very page and channel, the one that counts first.

        A first channel may be there twice: ledgers of older versions know it as channel 0 too. The one with
        labels counts.
        """
        channels = (-1, 0) if image.gray and image.channel == -1 else (image.channel,)
        rows = [row for row in self.of_file(image) if row.page == image.page and row.channel in channels]
        if len(rows) < 2:
            return rows
        ids = [row.id for row in rows]
        labelled = set(self._session.scalars(select(LabelRow.image_id).where(LabelRow.image_id.in_(ids))))
        return sorted(rows, key=lambda row: (row.id not in labelled, row.channel))

    def for_labels(self, image: ReadFile) -> list[ImageRow]:
        """The rows for labels of this file: the plain image, else the first page or channel added."""
        fitting = [row for row in self.of_file(image) if (row.height, row.width) == image.size_hw]
        return self.exact(image) or fitting[:1]

    def add(self, image: ReadFile, split: str | None) -> ImageRow:
        """Takes a new image into the ledger; into train where no split is named and it replaces none."""
        left = self._left.get(self._places.of(image.path))
        row = ImageRow(
            sha256=image.sha256,
            page=image.page,
            channel=image.channel,
            path=self._project.stored_path(image.path, self._places),
            file_name=image.path.name,
            height=image.size_hw[0],
            width=image.size_hw[1],
            pixel_size_um=image.pixel_size_um,
            split=split or ("train" if left is None else left.split),
            group=None if left is None else left.group,
        )
        self._session.add(row)
        self._rows.setdefault(row.sha256, []).append(row)
        self.added += 1
        return row

    def is_old(self, row: ImageRow) -> bool:
        """Whether the ledger had the image before this act."""
        return row.id in self._old

    def _renew(self, file: ReadFile) -> None:
        path = self._project.stored_path(file.path, self._places)
        for row in self.of_file(file):
            if row.replaced_at is not None or (row.path != path and self._is_lost(row)):
                row.path, row.file_name, row.replaced_at = path, file.path.name, None

    def _is_lost(self, row: ImageRow) -> bool:
        """Whether the row's path no longer leads to its file."""
        path = self._project.root / row.path
        found = self._found.get(self._places.of(path))
        return not is_at(path, row.sha256) if found is None else found != row.sha256

    def _replace(self, file_names: set[str]) -> int:
        """Marks the images whose paths lead to other content; how many."""
        columns = select(ImageRow.id, ImageRow.path, ImageRow.sha256).where(ImageRow.replaced_at.is_(None))
        of_names = rows_with(self._session, columns, ImageRow.file_name, sorted(file_names))
        replaced = [
            image_id
            for image_id, path, sha256 in of_names
            if self._found.get(self._places.of(self._project.root / path), sha256) != sha256
        ]
        for image_id in replaced:
            row = self._session.get_one(ImageRow, image_id)
            row.replaced_at = now()
            self._left[self._places.of(self._project.root / row.path)] = row
        return len(replaced)


def _contents(files: Sequence[ReadFile]) -> list[str]:
    """The hashes of files, each once."""
    return list(dict.fromkeys(file.sha256 for file in files))
