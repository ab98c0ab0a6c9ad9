"""Markup: text is text, whatever it holds, and elements are closed."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelloop.report.markup import details, facts, table, tag


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.title: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.title = dict(attrs).get("title", self.title)

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> _Reader:
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    return reader


# A parser of HTML reads these as others by its standard: not what escaping is about.
TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]))


@given(TEXTS, TEXTS)
def test_text_and_attributes_come_back_as_they_were(text: str, title: str) -> None:
    found = read(tag("p", text, title=title))
    assert found.tags == ["p"]
    assert found.text == text
    assert found.title == title


def test_markup_is_not_escaped_again_and_text_inside_it_only_once() -> None:
    assert tag("p", tag("b", "a & b"), " <i>") == "<p><b>a &amp; b</b> &lt;i&gt;</p>"


def test_none_is_nothing_and_attributes_without_value_are_left_out() -> None:
    assert tag("p", None, [None, ["x"]], id=None, hidden=True, class_="a") == '<p hidden class="a">x</p>'


def test_an_element_without_content_takes_none() -> None:
    assert tag("br") == "<br>"
    with pytest.raises(ValueError, match="br"):
        tag("br", "text")


def test_a_table_names_its_rows_and_columns_for_readers_of_screens() -> None:
    made = table("Sizes", ["", "small", "large"], [["a", "1", "2"]])
    assert '<th scope="row" role="rowheader">a</th>' in made
    assert made.count('scope="col"') == 3
    assert '<td role="cell" data-label="large">2</td>' in made


def test_a_table_with_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        table("Sizes", ["", "small"], [["a", "1", "2"]])


def test_wide_tables_stack_and_narrow_ones_do_not() -> None:
    wide, narrow = ["", *"abc"], ["", "a"]
    assert "stacks" in table("x", wide, [])
    assert "stacks" not in table("x", narrow, [])
    assert "stacks" not in table("x", wide, [], stacks=False)


def test_details_and_facts_hold_what_they_are_given() -> None:
    assert read(details("More", tag("p", "inside"))).text == "Moreinside"
    assert read(facts([("a<", "b"), ("c", "d")])).text == "a<bcd"
