"""Diversity: which images cover a pool, the typical ones first.

Clusters of embeddings stand for the kinds of images there are. Those that hold an image which was asked
before are covered; of the others the largest comes first, and of it the most typical image (TypiClust,
Hacohen et al. 2022, "Active Learning on a Budget", section 3: where labels are few, typical images teach more
than those a model is unsure of).
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

NEIGHBOURS = 20  # that typicality looks at, as in the paper
MAX_CLUSTERS = 400
SAMPLE = 2000  # of a larger cluster, images that distances are taken to
LONG_BEGINNING = 5_000_000  # distances: about a second
LARGEST_POOL = 4000  # of a larger one so many images, drawn at random, stand for it
# Two images this much alike (cosine) are one to a person: the same field a moment later. Measured: the same
# organoids 4 px further on have 0.995 to 0.998, the most alike of 400 different images 0.985 (nuclei: 0.994).
NEAR_DUPLICATE = 0.995

Vectors = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def clusters(vectors: Vectors, k: int, rng: np.random.Generator) -> IntArray:
    """int64 (n,), the cluster of each vector, 0..k-1 (Lloyd's k-means). Clusters may be empty.

    It begins as k-means++ does, and with random vectors where that would take long: scipy's takes k² n steps.

    Args:
        vectors: float32 (n, d), n >= 1.
        k: Wanted, 1..n.
        rng: Of the first centres.
    """
    from scipy.cluster.vq import kmeans2  # not needed by most commands

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        begin = "++" if k * k * len(vectors) <= LONG_BEGINNING else "points"
        _, labels = kmeans2(vectors, k, minit=begin, iter=15, rng=rng, check_finite=False)
    return np.asarray(labels, np.int64)


def typicality(vectors: Vectors, rng: np.random.Generator) -> Floats:
    """float64 (n,): one over the mean distance to the nearest neighbours (the paper's equation 1).

    Args:
        vectors: float32 (n, d), of one cluster.
        rng: Draws those that are looked at as neighbours, where there are many.
    """
    n = len(vectors)
    if n == 0:
        return np.zeros(0)
    among = vectors if n <= SAMPLE else vectors[rng.choice(n, SAMPLE, replace=False)]
    squared = 2 - 2 * np.clip(vectors @ among.T, -1, 1)
    nearest = min(NEIGHBOURS + 1, len(among))
    distances = np.sqrt(np.partition(squared, nearest - 1, axis=1)[:, :nearest].astype(np.float64))
    return np.asarray(1 / (distances.sum(axis=1) / max(nearest - 1, 1) + 1e-9), np.float64)


def typical_first(vectors: Vectors, known: Vectors, n: int, rng: np.random.Generator) -> list[int]:
    """The n indices that cover the pool best, in the order in which they should be asked.

    Args:
        vectors: float32 (m, d), unit norm, of what may be asked.
        known: float32 (l, d), of what was asked before; kinds of images that it holds come last.
        n: How many are wanted; fewer where the pool is smaller.
        rng: Of the clusters.
    """
    n = min(n, len(vectors))
    if n == 0:
        return []
    if len(vectors) > max(LARGEST_POOL, 4 * n):
        some = rng.choice(len(vectors), max(LARGEST_POOL, 4 * n), replace=False)
        return [int(some[i]) for i in typical_first(vectors[some], known, n, rng)]
    everything = np.concatenate([vectors, known])
    k = min(n + len(known), MAX_CLUSTERS, len(everything))
    label = clusters(everything, k, rng)
    own, of_known = label[: len(vectors)], label[len(vectors) :]
    sizes = np.bincount(label, minlength=k)
    covered = np.bincount(of_known, minlength=k)
    ranked = []
    for c in range(k):
        members = np.flatnonzero(own == c)
        best = members[np.argsort(-typicality(vectors[members], rng), kind="stable")]
        # The second image of a cluster comes after the first of all others, and so on.
        ranked += [(int(covered[c]) + i, -int(sizes[c]), int(member)) for i, member in enumerate(best)]
    return [member for _, _, member in sorted(ranked)[:n]]


def is_near_duplicate(vector: Vectors, others: Vectors) -> bool:
    """Whether a vector is almost one of others, float32 (k, d); zeros are like nothing."""
    return bool(len(others) and float((others @ vector).max()) >= NEAR_DUPLICATE)
