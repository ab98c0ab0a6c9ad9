from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from labelloop.errors import ProjectError
from labelloop.project.config import LabelStudioConfig, ProjectConfig
from labelloop.project.project import Project


def test_a_ledger_without_the_tables_of_review_gets_them_and_keeps_the_rest(tmp_path: Path) -> None:
    Project.init(tmp_path, ProjectConfig(name="old"))
    with sqlite3.connect(tmp_path / ".labelloop" / "ledger.db") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'review_%'")]
        for name in tables:
            db.execute(f"DROP TABLE {name}")
        db.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
        db.execute("INSERT INTO meta VALUES ('kept', 'yes')")
    db.close()
    Project.open(tmp_path)
    Project.open(tmp_path)
    with sqlite3.connect(tmp_path / ".labelloop" / "ledger.db") as db:
        again = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'review_%'")]
        assert sorted(again) == sorted(tables)
        assert dict(db.execute("SELECT key, value FROM meta")) == {"schema": "2", "kept": "yes"}
    db.close()


def test_a_ledger_of_a_newer_labelloop_is_refused(tmp_path: Path) -> None:
    Project.init(tmp_path, ProjectConfig(name="new"))
    with sqlite3.connect(tmp_path / ".labelloop" / "ledger.db") as db:
        db.execute("UPDATE meta SET value = '3' WHERE key = 'schema'")
    db.close()
    with pytest.raises(ProjectError, match="another version"):
        Project.open(tmp_path)


def test_where_reviews_take_place_is_kept_in_labelloop_toml(tmp_path: Path) -> None:
    project = Project.init(tmp_path, ProjectConfig(name="a", classes=("cell",), pixel_size_um=0.5))
    project.set_label_studio(LabelStudioConfig(url="https://lab.example/studio/", project=7))
    config = Project.open(tmp_path).config
    assert config == project.config
    assert config.classes == ("cell",)
    assert config.label_studio == LabelStudioConfig(url="https://lab.example/studio", project=7)


@pytest.mark.parametrize(
    "url", ["lab.example", "ftp://lab.example", "http://", "http://me:secret@lab.example"]
)
def test_an_address_that_is_none_or_holds_a_password_is_refused(tmp_path: Path, url: str) -> None:
    Project.init(tmp_path, ProjectConfig(name="a"))
    toml = tmp_path / "labelloop.toml"
    toml.write_text(toml.read_text() + f'[label_studio]\nurl = "{url}"\nproject = 1\n')
    with pytest.raises(ProjectError, match="an address") as caught:
        Project.open(tmp_path)
    assert "secret" not in str(caught.value)
