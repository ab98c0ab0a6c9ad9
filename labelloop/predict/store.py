"""What has been predicted into an output folder: the memory that makes prediction resumable.

One SQLite file lies beside the results. An image is recognised by its content, a model by its weights, so
that neither a changed file nor another model can be confused with what was stored; a path is only a short
cut past hashing a file that has kept its size and time.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from labelloop.errors import OutputError
from labelloop.instances import Instances
from labelloop.models.data_stats import DataStats
from labelloop.models.protocol import InstanceModel
from labelloop.predict.tiles import TileLayout
from labelloop.project.finding import PREDICTIONS
from labelloop.project.ledger import decode_instances, encode_instances

STORE_NAME = f"{PREDICTIONS}.db"
PART_NAME = f"{PREDICTIONS}-part-{{}}.db"  # of one of several processes
_FORMAT = 1  # of the store and of how objects are made from a model's predictions
_TABLES = """
CREATE TABLE IF NOT EXISTS predictions (
    model TEXT, image TEXT, height INTEGER, width INTEGER, instances BLOB, PRIMARY KEY (model, image)
);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS outputs (path TEXT PRIMARY KEY, made_from TEXT);
"""


@dataclass(frozen=True, kw_only=True)
class FileStamp:
    """Size, bytes, and time of change, ns: while both stay, the content is taken to stay."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The stamp of a file."""
        stat = path.stat()
        return cls(size=stat.st_size, mtime_ns=stat.st_mtime_ns)


class PredictionStore:
    """The store of one output folder, open for one model; a second process is refused.

    Args:
        folder: The output folder; it exists.
        model: Key of the model, ``model_key``.
        part: Of one of several processes that share the work; its store is taken over by the one without.

    Attributes:
        images: Keys of the images that this model has predicted. Other threads may look into it.

    Raises:
        OutputError: It cannot be opened or written.
    """

    def __init__(self, folder: Path, model: str, *, part: int | None = None) -> None:
        self._path = folder / (STORE_NAME if part is None else PART_NAME.format(part))
        self._model = model
        with self._translated():
            self._db = sqlite3.connect(self._path, timeout=2)
            try:
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.executescript(_TABLES)
                self._db.execute("BEGIN EXCLUSIVE")
                self._db.commit()
                self._look()
            except sqlite3.Error:
                self._db.close()
                raise

    def _look(self) -> None:
        rows = self._db.execute("SELECT image FROM predictions WHERE model = ?", (self._model,))
        self.images: set[str] = {image for (image,) in rows}
        self._files: dict[str, tuple[FileStamp, str]] = {
            path: (FileStamp(size=size, mtime_ns=mtime_ns), sha256)
            for path, size, mtime_ns, sha256 in self._db.execute("SELECT * FROM files")
        }
        self._outputs: dict[str, str] = dict(self._db.execute("SELECT path, made_from FROM outputs"))

    def absorb_parts(self) -> None:
        """Takes over what processes that shared the work have stored; their stores are gone afterwards."""
        parts = sorted(self._path.parent.glob(PART_NAME.format("*")))
        for path in parts:
            with self._translated(path):
                self._db.execute("ATTACH DATABASE ? AS part", (str(path),))
                try:
                    with self._db:
                        for table in ("predictions", "files", "outputs"):
                            self._db.execute(
                                f"INSERT OR REPLACE INTO main.{table} SELECT * FROM part.{table}"
                            )
                finally:
                    self._db.execute("DETACH DATABASE part")
            path.unlink()
        if parts:
            self._look()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def known_hash(self, path: Path, stamp: FileStamp) -> str | None:
        """SHA-256 of a file that was hashed before and has not changed since."""
        known = self._files.get(str(path))
        return known[1] if known is not None and known[0] == stamp else None

    def is_made(self, output: Path, made_from: str) -> bool:
        """Whether an output is there and was made from just this."""
        return self._outputs.get(self._name(output)) == made_from and output.is_file()

    def size_hw(self, image: str) -> tuple[int, int]:
        """Height and width of a predicted image, px."""
        with self._translated():
            row = self._db.execute(
                "SELECT height, width FROM predictions WHERE model = ? AND image = ?", (self._model, image)
            ).fetchone()
        return int(row[0]), int(row[1])

    def get(self, image: str) -> Instances:
        """What the model saw in an image of ``images``."""
        with self._translated():
            row = self._db.execute(
                "SELECT instances FROM predictions WHERE model = ? AND image = ?", (self._model, image)
            ).fetchone()
        return decode_instances(row[0])

    def put(self, predicted: Iterable[tuple[str, Instances]]) -> None:
        """Stores images, all of them or none."""
        rows = [(self._model, image, *found.size_hw, encode_instances(found)) for image, found in predicted]
        if not rows:
            return
        with self._translated(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO predictions VALUES (?, ?, ?, ?, ?)", rows)
        self.images.update(image for _, image, *_ in rows)

    def put_files(self, files: Iterable[tuple[Path, FileStamp, str]]) -> None:
        """Remembers the SHA-256 of files."""
        new = [entry for entry in files if self.known_hash(entry[0], entry[1]) != entry[2]]
        if not new:
            return
        self._files.update({str(path): (stamp, sha256) for path, stamp, sha256 in new})
        rows = [(str(path), stamp.size, stamp.mtime_ns, sha256) for path, stamp, sha256 in new]
        with self._translated(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)

    def put_outputs(self, outputs: Iterable[tuple[Path, str]]) -> None:
        """Remembers what finished outputs were made from."""
        rows = [(self._name(path), made_from) for path, made_from in outputs]
        if not rows:
            return
        self._outputs.update(rows)
        with self._translated(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO outputs VALUES (?, ?)", rows)

    def made_by_others(self) -> list[str]:
        """Outputs that other models have left here, by their place in the folder, sorted."""
        folder = self._path.parent
        return sorted(
            name
            for name, made_from in self._outputs.items()
            if not made_from.startswith(f"{self._model} ") and (folder / name).is_file()
        )

    def forget_other_models(self) -> None:
        """Frees what other models predicted into this folder."""
        with self._translated():
            others = self._db.execute(
                "SELECT 1 FROM predictions WHERE model != ? LIMIT 1", (self._model,)
            ).fetchone()
            if others is None:
                return
            with self._db:
                self._db.execute("DELETE FROM predictions WHERE model != ?", (self._model,))
            self._db.execute("VACUUM")

    def _name(self, output: Path) -> str:
        """How an output is kept: by its place in the folder, which may be moved."""
        return output.relative_to(self._path.parent).as_posix()

    @contextmanager
    def _translated(self, path: Path | None = None) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error)
            way_outs = {
                "locked": "Another labelloop predict is writing there; wait for it or choose another --out.",
                "full": "Free space on the disk and run the same command again; it continues from here.",
                "readonly": "Make the folder writable or choose another --out.",
                "unable to open": "Make the folder writable or choose another --out.",
                "not a database": "Delete that file; the images are predicted again.",
                "malformed": "Delete that file; the images are predicted again.",
            }
            way_out = next((text for key, text in way_outs.items() if key in reason), "")
            raise OutputError(
                f"finished predictions cannot be kept ({reason})", value=path or self._path, way_out=way_out
            ) from error


def image_key(sha256: str, page: int, channel: int) -> str:
    """How the store names a page and channel of a file."""
    return f"{sha256}/{page}/{channel}"


def model_key(model: InstanceModel, stats: DataStats, layout: TileLayout) -> str:
    """SHA-256 of all that decides what a model predicts: weights, intensities, tiles."""
    digest = hashlib.sha256(f"{_FORMAT} {type(model).__qualname__} {stats} {layout}".encode())
    for name, tensor in model.module().state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
