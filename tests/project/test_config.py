"""labelloop.toml: what is written is read back."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.errors import ProjectError
from labelloop.project.config import LabelStudioConfig, ProjectConfig, config_text, read_config, write_config

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(name=names, classes=st.lists(names, unique=True, max_size=3))
def test_names_of_any_characters_are_read_back(name: str, classes: list[str]) -> None:
    config = ProjectConfig(name=name, classes=tuple(classes))
    assert ProjectConfig.model_validate(tomllib.loads(config_text(config))) == config


def test_a_character_that_no_text_holds_on_purpose_is_read_back() -> None:
    config = ProjectConfig(name="a\x7fb", classes=("a\x00", "\r\nb", "c\u2028"))
    assert ProjectConfig.model_validate(tomllib.loads(config_text(config))) == config


def test_what_a_person_wrote_beside_the_settings_stays_when_they_are_written(tmp_path) -> None:
    path = tmp_path / "labelloop.toml"
    path.write_text(
        '# objective 10x\nname = "screen"  # of spring\nclasses = []\n\npixel_size_um = 0.65 # log\n'
    )
    before = read_config(path)
    studio = LabelStudioConfig(url="http://127.0.0.1:8080", project=3)
    after = before.model_copy(update={"classes": ("organoid", "debris"), "label_studio": studio})
    write_config(path, after)
    assert read_config(path) == after
    text = path.read_text()
    assert text.startswith('# objective 10x\nname = "screen"  # of spring\n')
    assert "pixel_size_um = 0.65 # log" in text
    write_config(path, before)  # as where adding fails
    assert read_config(path) == before
    assert "# objective 10x" in path.read_text()


def test_a_file_that_was_damaged_since_it_was_read_is_not_written_over(tmp_path) -> None:
    path = tmp_path / "labelloop.toml"
    path.write_text("name = 'screen")
    with pytest.raises(ProjectError, match="not valid TOML"):
        write_config(path, ProjectConfig(name="screen"))
    assert path.read_text() == "name = 'screen"


@given(names, st.lists(names, unique=True, max_size=3), st.lists(names, unique=True, max_size=3))
def test_a_file_that_is_changed_is_read_back(name: str, classes: list[str], others: list[str]) -> None:
    known = config_text(ProjectConfig(name=name, classes=tuple(classes)))
    config = ProjectConfig(name=name, classes=tuple(others), pixel_size_um=0.5)
    assert ProjectConfig.model_validate(tomllib.loads(config_text(config, known=known))) == config
