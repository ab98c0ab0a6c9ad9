"""Which images belong together: by the folder that they lie in, or by a pattern in their paths."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from labelloop.errors import UsageError
from labelloop.plurals import plural
from labelloop.progress import Progress
from labelloop.project.ledger import scalars_with
from labelloop.project.places import Places
from labelloop.project.project import Project
from labelloop.project.tables import ImageRow

BY_FOLDER = "folder"


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """What ``--group-by`` asks for.

    Attributes:
        pattern: Its first group, else the whole match, is the group of an image unless it is empty; None to
            go by folders.
    """

    pattern: re.Pattern[str] | None

    @classmethod
    def asked(cls, group_by: str | None) -> Grouping | None:
        """``folder`` or a regular expression; None where nothing is asked for.

        Raises:
            UsageError: It is no regular expression.
        """
        if group_by is None:
            return None
        if group_by == BY_FOLDER:
            return cls(pattern=None)
        try:
            return cls(pattern=re.compile(group_by))
        except re.error as error:
            raise UsageError(
                f"the pattern of --group-by is not a regular expression ({error})",
                value=group_by,
                way_out="Use folder, or a pattern such as '(plate\\d+)_'.",
            ) from error

    def apply(
        self, project: Project, session: Session, placed: Sequence[tuple[ImageRow, Path]], progress: Progress
    ) -> None:
        """Gives images their groups, within the act that adds them.

        Args:
            project: Holds the images.
            session: Of the act.
            placed: Images of the act with the paths that name them now.
            progress: Is told of images without a match, and of those of earlier acts whose groups change.

        Raises:
            UsageError: The pattern finds no group in any of the images.
        """
        if self.pattern is not None:
            _apply_pattern(self.pattern, placed, progress)
            return
        session.flush()
        names = _FolderNames(project, session)
        chosen = names.choose({str(path.parent) for _, path in placed})
        moved = names.rename(chosen, but={row.id for row, _ in placed})
        for row, path in placed:
            row.group = chosen[str(path.parent)]
        if moved:
            names_now = ", ".join(sorted(set(chosen.values())))
            there = plural(
                moved,
                "image of these folders that was added before is",
                "images of these folders that were added before are",
            )
            progress.note(
                f"note: {there} now in the groups {names_now}; folders of one name no longer share a group"
            )


def _apply_pattern(
    pattern: re.Pattern[str], placed: Sequence[tuple[ImageRow, Path]], progress: Progress
) -> None:
    """Gives images the groups that a pattern finds; those in which it finds none keep theirs."""
    without = []
    for row, path in placed:
        group = _found(pattern, path)
        if group is None:
            without.append(path)
        else:
            row.group = group
    if not without:
        return
    if len(without) == len(placed):
        raise UsageError(
            "the pattern of --group-by finds no group in any of these images",
            value=pattern.pattern,
            way_out=f"It is searched in file names such as {without[0].name}, then in their paths. Correct "
            "it, or use folder.",
        )
    progress.note(
        f"note: the pattern of --group-by finds no group in {len(without)} of {len(placed)} images, such as "
        f"{without[0].name}: they keep the group that they had, or have none"
    )


def _found(pattern: re.Pattern[str], path: Path) -> str | None:
    """The text of the group in the file's name, else in its path; empty text is none."""
    for text in (path.name, path.as_posix()):
        match = pattern.search(text)
        if match is not None and (group := match.group(1 if pattern.groups else 0)):
            return group
    return None


class _FolderNames:
    """Names of folders as groups: the end of a folder's path, as much of it as tells it from the others.

    A folder keeps its name, which its images in the ledger tell, so that more images join them. In ledgers of
    older versions folders with one last name share it; such a folder gets a name of its own when images are
    added from it. Folders are the same where their real paths are.
    """

    def __init__(self, project: Project, session: Session) -> None:
        self._root, self._session = str(project.root), session
        self._real_path = Places().of_folder
        self._named: dict[str, set[str]] = defaultdict(set)  # real paths of folders, by name
        for path, group in session.execute(select(ImageRow.path, ImageRow.group)):
            if group is not None and self._is_name(group, path):
                self._named[group].add(self._real_path(self._folder(path)))

    def choose(self, folders: Collection[str]) -> dict[str, str]:
        """The name of each of these folders."""
        paths = {self._real_path(folder): folder for folder in sorted(folders)}
        shared = Counter(end for path in paths.values() for end in _ends(path))
        own: dict[str, list[str]] = defaultdict(list)
        for name, owners in self._named.items():
            if len(owners) == 1:
                own[next(iter(owners))].append(name)
        names = {}
        for real, path in paths.items():
            free = [end for end in _ends(path) if shared[end] == 1 and self._named.get(end, {real}) == {real}]
            names[real] = min(own[real] or free or [path], key=len)
        return {folder: names[self._real_path(folder)] for folder in folders}

    def rename(self, chosen: Mapping[str, str], *, but: Collection[int]) -> int:
        """Gives all images in the ledger that had another name of these folders the chosen one; how many.

        Args:
            chosen: Names by folder.
            but: Ids of images that are left out.
        """
        names = {self._real_path(folder): name for folder, name in chosen.items()}
        old = [
            name
            for name, owners in self._named.items()
            if any(names.get(real, name) != name for real in owners)
        ]
        n_renamed = 0
        for row in scalars_with(self._session, select(ImageRow), ImageRow.group, old):
            name = names.get(self._real_path(self._folder(row.path)))
            if row.id not in but and name is not None and self._is_name(str(row.group), row.path):
                n_renamed += row.group != name
                row.group = name
        return n_renamed

    def _is_name(self, group: str, stored_path: str) -> bool:
        """Whether an image's group is its folder's name, which may begin with what the project was called."""
        inside = os.path.dirname(stored_path)  # the whole folder where it lies elsewhere
        return _is_end(group, self._folder(stored_path)) or bool(inside and group.endswith(f"/{inside}"))

    def _folder(self, stored_path: str) -> str:
        return os.path.dirname(os.path.join(self._root, stored_path))


def _ends(folder: str) -> list[str]:
    """``A01``, ``p1/A01`` and so on up to the whole path."""
    parts = folder.strip("/").split("/")
    return ["/".join(parts[start:]) for start in reversed(range(len(parts)))] + [folder]


def _is_end(name: str, folder: str) -> bool:
    return folder == name or folder.endswith(f"/{name}")
