from __future__ import annotations

import pytest

from labelloop.plurals import plural


@pytest.mark.parametrize(
    ("count", "forms", "said"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (2345, ("image",), "2,345 images"),
        (2, ("entry", "entries"), "2 entries"),
        (1, ("image was", "images were"), "1 image was"),
    ],
)
def test_one_is_said_otherwise_than_several(count: int, forms: tuple[str, ...], said: str) -> None:
    assert plural(count, *forms) == said
