from __future__ import annotations

import sqlite3
from contextlib import nullcontext
from pathlib import Path
from threading import Timer

import pytest

from labelloop.errors import ProjectError
from labelloop.instances import Instances
from labelloop.project import ledger
from labelloop.project.config import LabelStudioConfig, ProjectConfig
from labelloop.project.ledger import LockedLedgerError, encode_instances
from labelloop.project.project import Project
from labelloop.project.tables import EditRow, Meta, ReviewTaskRow, RoundRow


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
        assert dict(db.execute("SELECT key, value FROM meta")) == {"schema": "5", "kept": "yes"}
    db.close()


def test_a_round_made_before_rounds_could_do_without_a_model_is_kept_with_its_tasks(tmp_path: Path) -> None:
    Project.init(tmp_path, ProjectConfig(name="old"))
    with sqlite3.connect(tmp_path / ".labelloop" / "ledger.db") as db:
        db.executescript(
            """
            DROP TABLE review_tasks; DROP TABLE review_rounds; DROP TABLE embeddings;
            CREATE TABLE review_rounds (id INTEGER NOT NULL PRIMARY KEY,
                run VARCHAR NOT NULL REFERENCES runs(name),
                which VARCHAR NOT NULL, model_version VARCHAR NOT NULL, server VARCHAR NOT NULL,
                strategy VARCHAR NOT NULL, min_score FLOAT NOT NULL, opened_at DATETIME NOT NULL,
                closed_at DATETIME);
            CREATE TABLE review_tasks (key VARCHAR NOT NULL PRIMARY KEY,
                round_id INTEGER NOT NULL REFERENCES review_rounds(id),
                image_id INTEGER NOT NULL REFERENCES images(id), tile JSON NOT NULL,
                confidence FLOAT NOT NULL, state VARCHAR NOT NULL, server_id INTEGER, sent BLOB);
            INSERT INTO images VALUES
                (1, 'ab', 0, -1, 'a.png', 'a.png', 8, 8, NULL, NULL, 'train', '2026-01-01', NULL);
            INSERT INTO runs VALUES
                ('r', 'finished', 'guided', 'm', 0, 'guided', '{}', NULL, '2026-01-01', NULL);
            INSERT INTO review_rounds VALUES (7, 'r', 'guided', 'v', 's', 'x', 0.5, '2026-01-01', NULL);
            INSERT INTO review_tasks VALUES ('k', 7, 1, '{"shown": ["o"]}', 0.25, 'sent', 3, x'00');
            UPDATE meta SET value = '2' WHERE key = 'schema';
            """
        )
    db.close()
    project = Project.open(tmp_path)
    with project.ledger.write() as session:
        task = session.get_one(ReviewTaskRow, "k")
        assert (task.round_id, task.confidence, task.server_id, task.chosen) == (7, 0.25, 3, None)
        assert session.get_one(RoundRow, 7).run == "r"
        session.add(
            RoundRow(run=None, which=None, model_version="cold", server="s", strategy="auto", min_score=0.5)
        )
    with sqlite3.connect(tmp_path / ".labelloop" / "ledger.db") as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        indices = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    db.close()
    assert {"ix_review_tasks_round_id", "ix_review_tasks_image_id"} <= indices


def test_edits_that_are_older_than_their_outlines_are_kept(tmp_path: Path) -> None:
    Project.init(tmp_path, ProjectConfig(name="old"))
    with sqlite3.connect(tmp_path / ".labelloop" / "ledger.db") as db:
        db.executescript(
            """
            ALTER TABLE review_edits DROP COLUMN outline_px;
            ALTER TABLE review_annotations DROP COLUMN maybe_twice;
            INSERT INTO review_edits VALUES (1, 5, 'moved', '["a"]', '["a"]', 0.75, 0, 0);
            UPDATE meta SET value = '3' WHERE key = 'schema';
            """
        )
    db.close()
    with Project.open(tmp_path).ledger.read() as session:
        edit = session.get_one(EditRow, 1)
        assert (edit.kind, edit.iou, edit.outline_px) == ("moved", 0.75, None)


def test_images_that_are_older_than_replacing_are_kept_and_used(tmp_path: Path) -> None:
    Project.init(tmp_path, ProjectConfig(name="old"))
    with sqlite3.connect(tmp_path / ".labelloop" / "ledger.db") as db:
        db.executescript(
            """
            ALTER TABLE images DROP COLUMN replaced_at;
            INSERT INTO images VALUES
                (1, 'ab', 0, -1, 'a.png', 'a.png', 8, 9, 0.5, 'A01', 'test', '2026-01-01');
            UPDATE meta SET value = '4' WHERE key = 'schema';
            """
        )
        nothing = encode_instances(Instances(size_hw=(8, 9)))
        db.execute("INSERT INTO label_revisions VALUES (1, 1, 1, 'coco:x', 0, ?, '2026-01-01')", [nothing])
    db.close()
    project = Project.open(tmp_path)
    [image] = project.images(labelled=True)
    assert (image.id, image.size_hw, image.group, image.split) == (1, (8, 9), "A01", "test")
    with sqlite3.connect(tmp_path / ".labelloop" / "ledger.db") as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        indices = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            db.execute(
                "INSERT INTO images SELECT 2, sha256, page, channel, path, file_name, height, width, "
                "pixel_size_um, group_name, split, added_at, NULL FROM images"
            )
    db.close()
    assert {"ix_images_sha256", "ix_images_file_name", "ix_images_split"} <= indices


@pytest.mark.parametrize(
    "name", ["10%FCS", "5%FBS 24h", "a%20b", "which?", "a#b", "what?mode=memory", "Zürich 培养", "'x'\";--"]
)
def test_a_project_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    project = Project.init(tmp_path / name, ProjectConfig(name="a"))
    with project.ledger.write() as session:
        session.add(Meta(key="kept", value="yes"))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / ".labelloop" / "ledger.db").is_file()
    with Project.open(tmp_path / name).ledger.read() as session:
        assert session.get_one(Meta, "kept").value == "yes"


def test_a_ledger_of_a_newer_labelloop_is_refused(tmp_path: Path) -> None:
    Project.init(tmp_path, ProjectConfig(name="new"))
    with sqlite3.connect(tmp_path / ".labelloop" / "ledger.db") as db:
        db.execute("UPDATE meta SET value = '6' WHERE key = 'schema'")
    db.close()
    with pytest.raises(ProjectError, match="another version"):
        Project.open(tmp_path)
    (tmp_path / "labelloop.toml").unlink()
    with pytest.raises(ProjectError, match="another version"):
        Project.init(tmp_path, ProjectConfig(name="new"))


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


@pytest.mark.parametrize("patient", [True, False])
def test_a_command_waits_for_another_one_that_writes_for_longer_than_sqlite_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, patient: bool
) -> None:
    Project.init(tmp_path, ProjectConfig(name="p"))
    monkeypatch.setattr(ledger, "BUSY_S", 0)
    monkeypatch.setattr(ledger, "WAIT_FOR_LOCK_S", 60 if patient else 0)
    project = Project.open(tmp_path)
    other = sqlite3.connect(
        tmp_path / ".labelloop" / "ledger.db", isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN IMMEDIATE")
    release = Timer(0.5, other.execute, ["COMMIT"])
    release.start()
    with nullcontext() if patient else pytest.raises(LockedLedgerError), project.ledger.write() as session:
        session.add(Meta(key="after", value="all"))
    release.join()
    other.close()
    with project.ledger.read() as session:
        assert (session.get(Meta, "after") is not None) is patient
