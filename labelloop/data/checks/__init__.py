"""Data quality: what would spoil a training or make its numbers look better than they are."""

from labelloop.data.checks.check import check_project
from labelloop.data.checks.findings import CheckReport, Finding

__all__ = ["CheckReport", "Finding", "check_project"]
