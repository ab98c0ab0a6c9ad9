from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.paths import plain_path, plain_paths

NAMES = ("a", "A", "é", "e\u0301", "link", "way")


@pytest.mark.parametrize("name", ["~scan.tif", "~$plate.tif", "~nobody-has-this-name/x.tif"])
def test_a_tilde_that_is_no_home_is_part_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert plain_path(Path(name)) == tmp_path / name


@pytest.mark.parametrize(("name", "place"), [("~", "."), ("~/scans/../a.tif", "a.tif")])
def test_a_tilde_alone_is_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plain_path(Path(name)) == tmp_path / place


@pytest.mark.parametrize("name", ["loop.png", "loop.png/x.png", "loop.png/../x.png", "../loop.png"])
def test_a_link_that_leads_to_itself_has_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "inside").mkdir()
    for folder in (tmp_path, tmp_path / "inside"):
        (folder / "loop.png").symlink_to("loop.png")
    monkeypatch.chdir(tmp_path / "inside")
    assert plain_path(Path(name)) == Path(os.path.normpath(Path.cwd() / name))


def path_by_path(path: Path) -> Path:
    """What ``plain_path`` says, with all links followed for each path anew."""
    absolute = Path(os.path.expanduser(path)).absolute()
    plain = Path(os.path.normpath(absolute))
    real = os.path.realpath(absolute)
    return plain if os.path.realpath(plain) == real else Path(real)


@contextmanager
def tree(folders: list[list[str]], links: list[tuple[list[str], list[str]]]) -> Iterator[None]:
    """Works in ``here/work`` of a made tree: folders, a file in each, and links, as far as there is room."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        here = Path(name, "here")
        for parts in ([], ["work"], *folders):
            here.joinpath(*parts).mkdir(parents=True, exist_ok=True)
            (here.joinpath(*parts) / "x.png").touch()
        for place, target in links:
            link = here.joinpath(*place)
            if link.parent.is_dir() and not os.path.lexists(link):
                link.symlink_to(os.path.join(*target))
        os.chdir(here / "work")
        try:
            yield
        finally:
            os.chdir(before)


folder_names = st.lists(st.sampled_from(NAMES[:4]), min_size=1, max_size=3)
link_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)
targets = st.lists(st.sampled_from((*NAMES, "..", "x.png", "work")), min_size=1, max_size=3)
typed = st.lists(st.sampled_from((*NAMES, "..", "..", "x.png", ".", "work")), min_size=1, max_size=6)


@given(
    folders=st.lists(folder_names, max_size=4),
    links=st.lists(st.tuples(link_names, targets), max_size=5),
    paths=st.lists(typed, min_size=1, max_size=8),
)
def test_many_paths_are_spelled_as_each_alone_whatever_links_are_in_them(
    folders: list[list[str]], links: list[tuple[list[str], list[str]]], paths: list[list[str]]
) -> None:
    with tree(folders, links):
        given_paths = [Path(*parts) for parts in paths]
        assert plain_paths(given_paths) == [path_by_path(path) for path in given_paths]


@pytest.mark.parametrize(
    ("way", "looks_at_a_file"),
    [("pool", 0), ("../here/pool", 0), ("../way/../here/pool", 2), ("link/../pool", 2)],
)
def test_links_are_followed_once_for_a_folder_however_many_files_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lstat_calls: list[Any], way: str, looks_at_a_file: int
) -> None:
    for folder in ("here/pool", "elsewhere/deep"):
        (tmp_path / folder).mkdir(parents=True)
    for link in ("here/link", "way"):
        (tmp_path / link).symlink_to(tmp_path / "elsewhere" / "deep")
    monkeypatch.chdir(tmp_path / "here")
    counts = []
    for n_files in (20, 200):
        lstat_calls.clear()
        plain_paths([Path(way, f"{number}.png") for number in range(n_files)])
        counts.append(len(lstat_calls))
    assert counts[1] - counts[0] == 180 * looks_at_a_file
