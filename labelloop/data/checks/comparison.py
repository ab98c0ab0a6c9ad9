"""Pairs of images with common content: the same pixels, the same picture, a piece of one in the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import numpy as np

from labelloop.data.checks.findings import Finding, finding
from labelloop.data.checks.fingerprint import Fingerprint, read_half
from labelloop.data.checks.keypoints import Floats
from labelloop.data.checks.pieces import Candidate, Piece, candidates, verify
from labelloop.data.checks.twins import MIN_CORRELATION, likely_twins, whole_correlation
from labelloop.errors import ImageError
from labelloop.progress import Progress, stage
from labelloop.project.project import SPLITS, ImageRecord

_HELD_IMAGES = 64  # half-scale images kept while pairs are verified
_WHOLE = 0.95  # share of the smaller image from which on it is called a piece of the other


class Comparison:
    """Images compared with each other. What is known to be the same picture is not compared for pieces.

    Args:
        records: All images of a project.
        names: How findings call them.
        prints: What was seen of each.
    """

    def __init__(
        self, records: Sequence[ImageRecord], names: Sequence[str], prints: Sequence[Fingerprint]
    ) -> None:
        self.records, self.names, self.prints = records, names, prints
        self.usable = [i for i, seen in enumerate(prints) if seen.fault is None and seen.blank is None]
        self.chains = _Chains(len(records))
        self.half = lru_cache(maxsize=_HELD_IMAGES)(self._half)

    def duplicates(self) -> list[Finding]:
        """Images with the same pixels, in different files or in one."""
        found = []
        for members in self._by_pixels().values():
            if len(members) > 1:
                for i in members[1:]:
                    self.chains.join(members[0], i)
                images, splits = self._sorted(members)
                message = f"the same pixels in {len(images)} images"
                if len(splits) > 1:
                    found.append(finding("leak", images, f"{message}, in {' and '.join(splits)}"))
                else:
                    found.append(finding("duplicate", images, message))
        return found

    def twins(self, progress: Progress) -> list[Finding]:
        """Whole images that look the same; one finding for all that are chained by likeness."""
        firsts = [members[0] for members in self._by_pixels().values()]
        if len(firsts) < 2:
            return []
        shapes = np.array([self.prints[i].size_hw for i in firsts], np.int64)
        likely = likely_twins(np.stack([self.prints[i].thumbnail for i in firsts]), shapes)
        links: list[tuple[int, int, float]] = []  # an image, how the other is turned, correlation
        with stage(progress, "comparing whole images", len(likely)):
            for pair in likely:
                first, second = firsts[pair.first], firsts[pair.second]
                progress.advance()
                if self.chains.joined(first, second):
                    continue
                correlation = self._laid_over(first, second, pair.orientation)
                if correlation >= MIN_CORRELATION:
                    self.chains.join(first, second)
                    links.append((first, pair.orientation, correlation))
        by_chain: dict[int, list[tuple[int, int, float]]] = defaultdict(list)
        for link in links:
            by_chain[self.chains.of(link[0])].append(link)
        return [self._twin_finding(chain, links) for chain, links in sorted(by_chain.items())]

    def pieces(self, progress: Progress) -> list[Finding]:
        """Images of different splits that share a part."""
        shared: dict[tuple[int, str], list[tuple[int, Piece]]] = defaultdict(list)
        for split, other_split in combinations(SPLITS, 2):
            sides = [[i for i in self.usable if self.records[i].split == s] for s in (split, other_split)]
            if not all(sides):
                continue
            for i, j, piece in self._pieces_of(
                sides[0], sides[1], progress, f"{split} against {other_split}"
            ):
                shared[(i, other_split)].append((j, piece))
        return [self._piece_finding(i, split, pieces) for (i, split), pieces in shared.items()]

    def _pieces_of(
        self, firsts: list[int], seconds: list[int], progress: Progress, title: str
    ) -> list[tuple[int, int, Piece]]:
        swap = len(firsts) < len(seconds)  # the turned side is better the smaller one
        one, other = (seconds, firsts) if swap else (firsts, seconds)
        points = [[p for i in side if (p := self.prints[i].keypoints) is not None] for side in (one, other)]
        with stage(progress, f"looking for pieces, {title}", len(other)):
            likely = candidates(points[0], points[1], progress.advance)
        found = []
        with stage(progress, f"verifying pieces, {title}", len(likely)):
            for candidate in sorted(likely, key=lambda c: (c.second, c.first)):
                progress.advance()
                i, j = one[candidate.first], other[candidate.second]
                if self.chains.joined(i, j):
                    continue
                piece = self._verified(candidate, i, j)
                if piece is not None:
                    found.append((j, i, piece) if swap else (i, j, piece))
        return sorted(found, key=lambda f: f[:2])

    def _verified(self, candidate: Candidate, i: int, j: int) -> Piece | None:
        first, second = self.half(i), self.half(j)
        return None if first is None or second is None else verify(candidate, first, second)

    def _laid_over(self, i: int, j: int, orientation: int) -> float:
        first, second = self.half(i), self.half(j)
        return 0.0 if first is None or second is None else whole_correlation(first, second, orientation)

    def _half(self, i: int) -> Floats | None:
        try:
            return read_half(self.records[i])
        except ImageError:  # it could be read a minute ago; the next check will call it unreadable
            return None

    def _by_pixels(self) -> dict[str, list[int]]:
        same: dict[str, list[int]] = defaultdict(list)
        for i in self.usable:
            same[self.prints[i].pixel_hash].append(i)
        return same

    def _sorted(self, members: list[int]) -> tuple[tuple[str, ...], list[str]]:
        """The names of images, train first, and their splits."""
        members = sorted(members, key=lambda i: SPLITS.index(self.records[i].split))
        present = {self.records[i].split for i in members}
        return tuple(self.names[i] for i in members), [split for split in SPLITS if split in present]

    def _twin_finding(self, chain: int, links: list[tuple[int, int, float]]) -> Finding:
        images, splits = self._sorted([i for i in self.usable if self.chains.of(i) == chain])
        least = min(correlation for _, _, correlation in links)
        turned = _turned_words(links[0][1]) if len(links) == 1 else ""
        message = f"the same picture{turned} in {len(images)} images (correlation {least:.2f})"
        if len(splits) == 1:
            return finding("near-duplicate", images, message)
        return finding("leak", images, f"{message}, in {' and '.join(splits)}")

    def _piece_finding(self, i: int, other_split: str, pieces: list[tuple[int, Piece]]) -> Finding:
        pieces = sorted(pieces, key=lambda p: -p[1].share)
        images = (self.names[i], *(self.names[j] for j, _ in pieces))
        best = pieces[0][1]
        turned = _turned_words(best.candidate.orientation)
        if best.share >= _WHOLE:
            message = f"a piece of one{turned} is the other"
        else:
            message = f"{best.share:.0%} of the smaller one{turned} is also in the other"
        own_split = self.records[i].split
        more = f", and it shares content with {len(pieces) - 1} more" if len(pieces) > 1 else ""
        where = f"({own_split} and {other_split}, correlation {best.correlation:.2f})"
        return finding("leak", images, f"{message} {where}{more}")


class _Chains:
    """Which images belong together (disjoint sets)."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def of(self, i: int) -> int:
        """The first image of the chain that holds this one."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        """Makes two chains one."""
        first, last = sorted((self.of(i), self.of(j)))
        self._parent[last] = first

    def joined(self, i: int, j: int) -> bool:
        """Whether two images are of one chain."""
        return self.of(i) == self.of(j)


def _turned_words(orientation: int) -> str:
    words = [f"turned by {90 * (orientation % 4)}°"] * bool(orientation % 4)
    words += ["mirrored"] * (orientation >= 4)
    return f", {' and '.join(words)}," if words else ""
