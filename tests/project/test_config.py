"""labelloop.toml: what is written is read back."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from labelloop.project.config import ProjectConfig, config_text

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(name=names, classes=st.lists(names, unique=True, max_size=3))
def test_names_of_any_characters_are_read_back(name: str, classes: list[str]) -> None:
    config = ProjectConfig(name=name, classes=tuple(classes))
    assert ProjectConfig.model_validate(tomllib.loads(config_text(config))) == config


def test_a_character_that_no_text_holds_on_purpose_is_read_back() -> None:
    config = ProjectConfig(name="a\x7fb", classes=("a\x00", "\r\nb", "c\u2028"))
    assert ProjectConfig.model_validate(tomllib.loads(config_text(config))) == config
