"""Whether scores mean what they say: the expected calibration error of detections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelloop.metrics.pairs import FloatColumn, PairTable
from labelloop.metrics.working_point import Values, in_crowd, match, ratio

BINS = 15
_ROUNDING = 1e-6  # of float32: so much above 1 a probability may be


@dataclass(frozen=True, kw_only=True, eq=False)
class ReliabilityBins:
    """Detections, all scores, in bins of equally many; sums of each image.

    Attributes:
        n: float64 (n_images, 15), detections.
        hits: float64 (n_images, 15), those that are matched at IoU 0.5.
        scores: float64 (n_images, 15), sum of their scores.
        undefined: Why they say nothing, or None.
    """

    n: Values
    hits: Values
    scores: Values
    undefined: str | None

    @classmethod
    def of(cls, table: PairTable) -> ReliabilityBins:
        """Bins all detections but those that lie in crowds and are no hits.

        Detections of equal score share a bin, so that the order of images does not matter; otherwise bins
        are equally full.
        """
        hit = np.zeros(len(table.det_score), np.bool_)
        hit[table.pair_det[match(table, -np.inf)]] = True
        counted = np.flatnonzero(hit | ~in_crowd(table))
        score = table.det_score[counted].astype(np.float64)
        _, value, times = np.unique(score, return_inverse=True, return_counts=True)
        middle_rank = np.cumsum(times) - (times + 1) / 2  # from 0
        bin_of = np.floor(BINS * middle_rank / max(1, len(score))).astype(np.int64)[value]
        cell = table.det_image[counted] * BINS + np.minimum(bin_of, BINS - 1)

        def sums(weights: FloatColumn | None) -> Values:
            total = np.bincount(cell, weights=weights, minlength=table.n_images * BINS)
            return total.reshape(table.n_images, BINS).astype(np.float64)

        undefined = None
        if not table.has_scores:
            undefined = "the predictions have no scores"
        elif not ((score >= 0) & (score <= 1 + _ROUNDING)).all():
            undefined = "scores are not between 0 and 1"
        return cls(
            n=sums(None),
            hits=sums(hit[counted].astype(np.float64)),
            scores=sums(score),
            undefined=undefined,
        )


def calibration_error(bins: ReliabilityBins, times: Values) -> Values:
    """Expected calibration error of P(IoU >= 0.5) against the score, all detections; 0..1, 0 is best.

    Mean over detections of |share of hits - mean score| of their bin, with 15 bins of equally many
    detections (Guo et al. 2017, arXiv:1706.04599, eq. 3, with the bins of Nguyen and O'Connor 2015). The
    bins are those of all images in every resample. Noise makes the error larger, never smaller. NaN without
    detections, without scores, and where they are no shares of one.

    Args:
        bins: Of all images.
        times: float64 (r, n_images).
    """
    if bins.undefined is not None:
        return np.full(len(times), np.nan)
    gap = np.abs(times @ bins.hits - times @ bins.scores).sum(axis=1)
    return ratio(gap, (times @ bins.n).sum(axis=1))
