"""``labelloop report``: where the file goes, and what it prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_page_is_written_and_named(project: Path, labelloop) -> None:
    ran = labelloop("report", "-C", project)
    assert ran.code == 0, ran.err
    assert ran.out.strip() == str(project / "report.html")
    assert (project / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_is_one_document_and_out_names_the_file(project: Path, labelloop, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "mine.html"
    ran = labelloop("report", "--out", out, "-C", project, "--json")
    assert ran.code == 0, ran.err
    assert ran.document == {"report": str(out), "bytes": out.stat().st_size}
    assert not (project / "report.html").exists()


def test_a_run_that_is_not_there_is_wrong_usage(project: Path, labelloop) -> None:
    ran = labelloop("report", "--run", "none", "-C", project)
    assert (ran.code, ran.out) == (2, "")
    assert "no such run" in ran.err


def test_a_place_that_cannot_be_written_is_said_with_the_way_out(project: Path, labelloop) -> None:
    ran = labelloop("report", "--out", project / "labelloop.toml" / "x.html", "-C", project)
    assert (ran.code, ran.out) == (1, "")
    assert "--out" in ran.err


def test_open_gives_the_file_to_the_browser_of_the_person(project: Path, tmp_path: Path) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    ran = subprocess.run(
        [sys.executable, "-m", "labelloop", "report", "--open", "-C", project],
        env={**os.environ, "BROWSER": str(browser)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert seen.read_text().strip() == (project / "report.html").as_uri()
