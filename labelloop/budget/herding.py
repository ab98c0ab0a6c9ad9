"""Herding: which tasks stand for most of what a model still gets wrong in a pool, per minute of work.

Uncertainty alone favours what is rare and odd, and where labels are few it is itself hardly better than
chance; covering the pool alone goes on asking about what the model long knows. Uncertainty coverage is both
(Bae et al., "Uncertainty Herding", ICLR 2025, arXiv 2412.20644, section 3): every image of the pool counts
as much as it is doubted, for as much as something that is asked about is like it. It is submodular, so that
taking the best gain per minute, again and again, comes close to the best choice that a budget allows (Lin and
Bilmes 2010, "Multi-document summarization via budgeted maximization of submodular functions", section 4).
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from labelloop.budget.diversity import Vectors

LARGEST_POOL = 4000  # of a larger one so many, drawn at random, stand for it
BELIEVED_AFTER = 20  # images with labels: then doubt counts as much as being unlike what is known

Floats = npt.NDArray[np.float64]


def herd(
    vectors: Vectors,
    known: Vectors,
    picked: Vectors,
    doubt: Floats,
    minutes: Floats,
    rng: np.random.Generator,
    *,
    wanted: int,
) -> list[int]:
    """The pool in the order in which it should be asked: what covers it best for its minutes comes first.

    How far an image stands for others is the median distance of the pool to what is known, or within it where
    nothing is: so the choice is coarse in the beginning and fine later (the paper's section 4 adapts the
    radius likewise, to the least distance of two labelled images, which one near-duplicate makes zero).

    Args:
        vectors: float32 (m, d), unit norm, of what may be asked.
        known: float32 (l, d), of what has labels or was asked before.
        picked: float32 (k, d), of what is going to be asked anyhow.
        doubt: float64 (m,), 0 or more, of a model that has learnt what is known.
        minutes: float64 (m,), predicted work.
        rng: Draws those that stand for a large pool.
        wanted: About how many will be asked. Of a large pool the order holds four times as many or
            ``LARGEST_POOL``, drawn at random.
    """
    if not len(vectors):
        return []
    most = max(LARGEST_POOL, 4 * wanted)
    if len(vectors) > most:
        some = rng.choice(len(vectors), most, replace=False)
        order = herd(vectors[some], known, picked, doubt[some], minutes[some], rng, wanted=wanted)
        return [int(some[i]) for i in order]
    among = rng.choice(len(vectors), min(LARGEST_POOL, len(vectors)), replace=False)
    squared = _squared_distances(vectors, vectors[among])
    to_known = _nearest(vectors[among], known)
    radius = float(np.median(squared if to_known is None else to_known)) or 1e-6
    squared /= -radius
    likeness = np.exp(squared, out=squared)
    covered = _likeness(_nearest(vectors[among], picked), len(among), radius)
    weights = counted(doubt[among], 1 - _likeness(to_known, len(among), radius), len(known))
    return _greedily(likeness, covered, weights.astype(np.float32), minutes)


def counted(doubt: Floats, unlike: npt.ArrayLike, n_known: int) -> Floats:
    """float64 (n,): how much each image counts, as far as the model that doubts it can be believed.

    The paper softens what a model says by a temperature from held-out labels; where labels are few there are
    none, so doubts count as if ``BELIEVED_AFTER`` images had said that what is unlike the known is wrong.
    What is known is discounted once: a model that has learnt it and still doubts what is like it needs more
    of the kind.

    Args:
        doubt: float64 (n,), 0 or more.
        unlike: (n,) in 0..1, 0 where something known looks the same.
        n_known: Images with labels.
    """
    own = n_known / (n_known + BELIEVED_AFTER)
    return own * _of_mean_one(doubt) + (1 - own) * _of_mean_one(np.asarray(unlike, np.float64))


def _of_mean_one(values: Floats) -> Floats:
    mean = float(values.mean()) if len(values) else 0.0
    return values / mean if mean > 0 else np.ones(len(values))


def _greedily(likeness: Vectors, covered: Vectors, weights: Vectors, minutes: Floats) -> list[int]:
    """Best gain per minute first. Gains only fall, so most need not be computed again (Minoux 1978)."""
    cost = np.maximum(minutes, 1e-9)

    def gain(i: int) -> float:
        return float(np.maximum(likeness[i] - covered, 0) @ weights) / float(cost[i])

    heap = [(-gain(i), i) for i in range(len(likeness))]
    heapq.heapify(heap)
    order: list[int] = []
    while heap:
        best = heap[0][1]
        now = -gain(best)
        if len(heap) > 1 and now > min(heap[1:3])[0]:
            heapq.heapreplace(heap, (now, best))
            continue
        heapq.heappop(heap)
        order.append(best)
        covered = np.maximum(covered, likeness[best])
    return order


def _likeness(squared: Vectors | None, n: int, radius: float) -> Vectors:
    """float32 (n,) in 0..1, of squared distances; 0 where there are none."""
    return np.zeros(n, np.float32) if squared is None else np.exp(-squared / radius)


def _nearest(vectors: Vectors, others: Vectors) -> Vectors | None:
    """float32 (n,), the squared distance to the nearest of others; None where there are none."""
    return _squared_distances(vectors, others).min(axis=1) if len(others) else None


def _squared_distances(vectors: Vectors, others: Vectors) -> Vectors:
    """float32 (n, k), of vectors of unit norm."""
    squared: Vectors = vectors @ others.T
    squared *= -2
    squared += 2
    return np.clip(squared, 0, None, out=squared)
