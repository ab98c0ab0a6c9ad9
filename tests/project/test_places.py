"""Links are followed once for each folder, and lead where they led when each path was followed alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from labelloop.project.adding import add_images
from labelloop.project.config import ProjectConfig
from labelloop.project.ledger import Ledger, sqlite_url
from labelloop.project.places import Places
from labelloop.project.project import Project

NAMES = ("a", "A", "é", "e\u0301", "project", "x.png")
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)
targets = st.lists(st.sampled_from((*NAMES, "..")), min_size=1, max_size=3)


def stored_alone(root: Path, path: Path) -> str:
    """What the ledger keeps, with all links followed for this path anew."""
    if path.is_relative_to(root):
        return str(path.relative_to(root))
    real = Path(os.path.realpath(path.parent), path.name)
    real_root = os.path.realpath(root)
    return str(real.relative_to(real_root)) if real.is_relative_to(real_root) else str(path)


@given(
    folders=st.lists(names, max_size=4),
    links=st.lists(st.tuples(names, targets), max_size=5),
    root=names,
    paths=st.lists(names, min_size=1, max_size=8),
)
def test_the_ledger_keeps_each_of_many_paths_as_it_would_alone_whatever_links_are_in_them(
    folders: list[list[str]],
    links: list[tuple[list[str], list[str]]],
    root: list[str],
    paths: list[list[str]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        for parts in folders:
            here.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        for place, target in links:
            link = here.joinpath(*place)
            if link.parent.is_dir() and not os.path.lexists(link):
                link.symlink_to(os.path.join(*target))
        project = Project(here.joinpath(*root), ProjectConfig(name="p"), Ledger(sqlite_url(here / "l.db")))
        places = Places()
        files = [here.joinpath(*parts) for parts in paths]
        assert [project.stored_path(file, places) for file in files] == [
            stored_alone(project.root, file) for file in files
        ]


@pytest.mark.parametrize("way", ["folder", "pattern", "names", "../pool", "link"])
def test_adding_more_images_of_a_folder_follows_no_more_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lstat_calls: list[Any], way: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "pool").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "pool")
    monkeypatch.chdir(tmp_path / "here")
    counts = []
    for n_files in (3, 30):
        files = [str(tmp_path / "pool" / f"{number}.png") for number in range(n_files)]
        for number, file in enumerate(files):
            Image.fromarray(np.full((8, 8), number, np.uint8)).save(file)
        project = Project.init(tmp_path / f"project of {n_files}", ProjectConfig(name="p"))
        typed = {
            "folder": [str(tmp_path / "pool")],
            "pattern": [str(tmp_path / "pool" / "*.png")],
            "names": files,
            "../pool": [f"../pool/{number}.png" for number in range(n_files)],
            "link": ["link"],
        }[way]
        lstat_calls.clear()
        for _ in range(2):  # new ones, and known ones
            add_images(project, typed, group_by="folder")
        assert len(project.images()) == n_files
        counts.append(len(lstat_calls))
    assert counts[0] == counts[1]
