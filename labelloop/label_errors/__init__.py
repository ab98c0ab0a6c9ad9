"""Suspected annotation errors: where labels and the predictions of models that never saw them disagree."""

from labelloop.label_errors.find import find_label_errors
from labelloop.label_errors.out_of_fold import OutOfFold, OutOfFoldSettings, out_of_fold
from labelloop.label_errors.suspects import KINDS, Kind, Suspect
from labelloop.label_errors.suspects_of import suspects_of

__all__ = [
    "KINDS",
    "Kind",
    "OutOfFold",
    "OutOfFoldSettings",
    "Suspect",
    "find_label_errors",
    "out_of_fold",
    "suspects_of",
]
