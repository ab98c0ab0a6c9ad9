"""Counts in sentences."""

from __future__ import annotations


def plural(count: int, singular: str, several: str | None = None) -> str:
    """``1 image``, ``2,345 images``.

    Args:
        count: How many.
        singular: What is said of one.
        several: What is said of none or more than one; the singular with an s if None.
    """
    return f"{count:,} {singular if count == 1 else several or singular + 's'}"
