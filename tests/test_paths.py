from __future__ import annotations

from pathlib import Path

import pytest

from labelloop.paths import plain_path


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
