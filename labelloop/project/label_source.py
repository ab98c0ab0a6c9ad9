"""Where labels come from: annotations, and the place of the images that they are of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labelloop.formats.catalog import AUTO, LabelReader, read_labels
from labelloop.formats.records import LabelSet
from labelloop.paths import plain_path
from labelloop.project.finding import require_unicode


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Annotations as a person names them.

    Attributes:
        path: A file or a folder.
        format: A name of ``formats.catalog.FORMATS``, a reader's name, or ``auto``.
        images: Folder of the images; if None, where the format's layout has them, else the annotations' own
            folder, then the project's images.
        leave_out: Labels of images whose names, as the annotations have them, match this regular expression
            are passed over.
        readers: Of formats of other software.
    """

    path: str
    format: str = AUTO
    images: str | None = None
    leave_out: str | None = None
    readers: Sequence[LabelReader] = ()

    @property
    def place(self) -> Path:
        """The path in its one spelling."""
        return plain_path(Path(self.path))

    def read(self) -> LabelSet:
        """What the annotations say.

        Raises:
            UsageError: There is no such format.
            FormatError: They cannot be read, or the ledger cannot keep their path.
        """
        require_unicode(self.place)
        label_set = read_labels(self.place, self.format, readers=self.readers)
        if self.leave_out is None:
            return label_set
        kept = (record for record in label_set.records if not re.search(self.leave_out, record.image))
        return replace(label_set, records=tuple(kept))
