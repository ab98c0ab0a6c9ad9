from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console

from labelloop.cli.output import Remarks, format_estimate, format_seconds, print_estimates, print_json
from labelloop.cli.progress import LiveProgress, PlainProgress, format_facts
from labelloop.metrics.estimate import Estimate


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        ({"value": 0.6712, "low": 0.6331, "high": 0.7049, "n": 9}, "0.671 [0.633, 0.705]"),
        ({"value": 0.5, "low": None, "high": None, "n": 1}, "0.500"),
        ({"value": 0.5, "low": None, "high": None, "n": 1, "reason": "one image"}, "0.500 (one image)"),
        ({"value": None, "low": None, "high": None, "n": 0, "reason": "no images"}, "- (no images)"),
        (None, "-"),
    ],
)
def test_a_number_comes_with_its_interval_or_the_reason(estimate, shown: str) -> None:
    assert format_estimate(estimate) == shown


def test_differences_show_their_sign() -> None:
    assert format_estimate({"value": 0.1, "low": -0.2, "high": 0.3}, signed=True) == "+0.100 [-0.200, +0.300]"


def test_intervals_of_too_few_images_are_said_to_be_unreliable(capsys: pytest.CaptureFixture[str]) -> None:
    enough = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 60}
    print_estimates({"guided": {"coco_ap": enough}})
    assert "unreliable" not in capsys.readouterr().out
    print_estimates({"guided": {"coco_ap": enough, "pq": {**enough, "n": 3, "reliable": False}}})
    assert "unreliable" in capsys.readouterr().out


def test_where_most_intervals_are_reliable_only_the_others_are_starred(
    capsys: pytest.CaptureFixture[str],
) -> None:
    enough = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 60}
    few = {**enough, "reliable": False}
    print_estimates(
        {"supervised": {"coco_ap": enough, "sq": enough}, "guided": {"coco_ap": enough, "sq": few}}
    )
    said = capsys.readouterr().out
    [ap, sq] = [line for line in said.splitlines() if line.startswith(("coco_ap", "sq"))]
    assert (ap.count("*"), sq.count("*")) == (0, 1)
    assert sq.rstrip().endswith("*")
    assert "* unreliable" in said
    assert "Too few" not in said
    print_estimates({"guided": {"coco_ap": few, "sq": few}})
    said = capsys.readouterr().out
    assert "Too few images" in said
    assert "*" not in said


def test_an_interval_without_width_is_not_blamed_on_the_number_of_images(
    capsys: pytest.CaptureFixture[str],
) -> None:
    alike = {"value": 1.0, "low": 1.0, "high": 1.0, "n": 60, "reliable": False}
    print_estimates({"guided": {"coco_ap": alike}})
    said = capsys.readouterr().out
    assert "unreliable" in said
    assert "Too few" not in said


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.42, "0.4 s"), (59.4, "59 s"), (125, "2:05"), (3725, "1:02:05")]
)
def test_seconds_are_shown_as_people_say_them(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown


def test_json_takes_any_file_name_and_the_values_of_the_core(capsys: pytest.CaptureFixture[str]) -> None:
    estimate = Estimate(value=0.5, low=0.4, high=0.6, n=3)
    print_json({"path": Path("ö\udcff.png"), "estimate": estimate})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {
        "path": "ö\udcff.png",
        "estimate": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 3},
    }


def test_json_refuses_numbers_that_json_has_not() -> None:
    with pytest.raises(ValueError, match="JSON"):
        print_json({"value": float("nan")})


def _drive(progress: LiveProgress | PlainProgress) -> None:
    progress.start("burn-in", 3)
    progress.advance(loss=0.51234, pseudo="21")
    progress.advance(2)
    progress.start("unknown length", 0)
    progress.advance(5)
    progress.note("[not markup] a note")
    progress.finish()
    progress.finish()
    progress.advance()  # a late report is no error


def test_plain_progress_is_lines_with_counts_and_facts() -> None:
    stream = io.StringIO()
    _drive(PlainProgress(Console(file=stream, width=20), every_s=0))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("burn-in: 1/3  loss 0.5123  pseudo 21")
    assert lines[0].endswith("left")
    assert any(line.startswith("unknown length: 5,") for line in lines)
    assert "[not markup] a note" in lines


def test_plain_progress_is_quiet_between_lines() -> None:
    stream = io.StringIO()
    progress = PlainProgress(Console(file=stream, width=20), every_s=1000)
    progress.start("predict", 1000)
    for _ in range(1000):
        progress.advance()
    progress.finish()
    assert len(stream.getvalue().splitlines()) == 1


def test_live_progress_shows_stage_facts_and_notes() -> None:
    stream = io.StringIO()
    _drive(LiveProgress(Console(file=stream, force_terminal=True, width=120)))
    shown = stream.getvalue()
    for part in ("burn-in", "3/3", "loss 0.5123", "[not markup] a note"):
        assert part in shown


def test_facts_are_short() -> None:
    assert format_facts({"mask_loss": 0.123456, "which": "a"}) == "mask loss 0.1235  which a"


def test_remarks_of_the_core_go_to_stderr_once(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("labelloop.somewhere")
    logger.addHandler(Remarks())
    for count in (3, 3, 4):
        logger.info("%d of 4 tensors come from [file]", count)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["3 of 4 tensors come from [file]", "4 of 4 tensors come from [file]"]
