from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelloop.predict.names import output_stems, unique_names

part = st.text(alphabet="abAB.é- ", min_size=1, max_size=4).filter(lambda text: text.strip(". ") != "")
name = st.lists(part, min_size=1, max_size=3).map("/".join)


@pytest.mark.parametrize(
    ("names", "paths", "expected"),
    [
        pytest.param(
            ["a.png", "b.png"], ["/x/a.png", "/x/b.png"], ["a.png", "b.png"], id="unique as they are"
        ),
        pytest.param(
            ["a.png", "a.png", "b.png"],
            ["/x/p1/a.png", "/x/p2/a.png", "/x/p1/b.png"],
            ["p1/a.png", "p2/a.png", "b.png"],
            id="one more folder tells them apart",
        ),
        pytest.param(
            ["a.png", "a.png"],
            ["/x/1/p/a.png", "/x/2/p/a.png"],
            ["1/p/a.png", "2/p/a.png"],
            id="two more folders",
        ),
        pytest.param(
            ["a.tif", "a.tif", "b.tif"],
            ["/x/p/a.tif", "/x/p/a.tif", "/x/p/b.tif"],
            ["a.tif", "a-2.tif", "b.tif"],
            id="two pages of one file are told apart by a number",
        ),
        pytest.param(
            ["a.tif", "a.tif", "a.tif"],
            ["/x/p/a.tif", "/x/p/a.tif", "/x/q/a.tif"],
            ["p/a.tif", "p/a-2.tif", "q/a.tif"],
            id="two pages of one file, and another file of that name",
        ),
        pytest.param(
            ["a.tif", "a.tif", "a-2.tif"],
            ["/x/a.tif", "/x/a.tif", "/x/a-2.tif"],
            ["a.tif", "a-3.tif", "a-2.tif"],
            id="a page takes no other file's name",
        ),
    ],
)
def test_names_grow_by_folders_until_they_differ(
    names: list[str], paths: list[str], expected: list[str]
) -> None:
    assert unique_names(names, [Path(path) for path in paths]) == expected


@settings(deadline=None)
@given(st.lists(st.tuples(name, name), max_size=8))
def test_names_always_differ(pairs: list[tuple[str, str]]) -> None:
    names = unique_names([name for name, _ in pairs], [Path("/" + path) for _, path in pairs])
    assert len(set(names)) == len(pairs)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["a.png", "sub/a.png"], ["a", "sub/a"], id="folders are mirrored"),
        pytest.param(["a.png", "a.tif"], ["a.png", "a.tif"], id="equal stems keep their suffix"),
        pytest.param(
            ["a.png", "A.png"], ["a.png", "A-2.png"], id="case does not tell files apart everywhere"
        ),
        pytest.param(["a.b.png"], ["a.b"], id="only the last suffix goes"),
        pytest.param(
            ["../../etc/x.png", "C:\\x.png"], ["etc/x", "C_/x"], id="nothing leaves the output folder"
        ),
        pytest.param(["...A"], ["image"], id="a name of dots is no folder above"),
        pytest.param(["mäuse 1.tif"], ["mäuse 1"], id="unicode and spaces stay"),
    ],
)
def test_outputs_are_named_after_their_images(names: list[str], expected: list[str]) -> None:
    assert output_stems(names) == expected


@settings(deadline=None)
@given(st.lists(name, max_size=8, unique=True))
def test_no_two_images_share_an_output(names: list[str]) -> None:
    stems = output_stems(names)
    assert len({stem.casefold() for stem in stems}) == len(names)
    assert all(not stem.startswith("/") and ".." not in stem.split("/") for stem in stems)
