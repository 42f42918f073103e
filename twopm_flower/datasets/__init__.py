"""Data sets: the UCI student data, its features, and its partition among nodes."""

from twopm_flower.datasets.features import SETUPS, TARGETS, FeatureEncoder
from twopm_flower.datasets.partition import SCHEMES, Split, partition, pool, split_holdout
from twopm_flower.datasets.student import (
    StudentTable,
    load_students,
)

__all__ = [
    "SCHEMES",
    "SETUPS",
    "TARGETS",
    "FeatureEncoder",
    "Split",
    "StudentTable",
    "load_students",
    "partition",
    "pool",
    "split_holdout",
]
