"""Everything on disk: cached features, failures, models, scores and exported CSVs. Knows no video and no network.

Names are loaded on first use: paths and errors are used without the libraries that tables and shards need.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.errors import StoreError
    from storage.exports.csv import read_trait_csv, write_trait_csv
    from storage.exports.rows import Unscored
    from storage.models.serializer import ModelSerializer
    from storage.shards.family import Family
    from storage.shards.features import VideoFeatures
    from storage.shards.store import FeatureStore
    from storage.tables.failures import Failure, FailureLog
    from storage.tables.scores import Score, ScoreStore

__all__ = [
    "Failure",
    "FailureLog",
    "Family",
    "FeatureStore",
    "ModelSerializer",
    "Score",
    "ScoreStore",
    "StoreError",
    "Unscored",
    "VideoFeatures",
    "read_trait_csv",
    "write_trait_csv",
]

_MODULE_OF = {
    "StoreError": "storage.errors",
    "read_trait_csv": "storage.exports.csv",
    "write_trait_csv": "storage.exports.csv",
    "Unscored": "storage.exports.rows",
    "ModelSerializer": "storage.models.serializer",
    "Family": "storage.shards.family",
    "VideoFeatures": "storage.shards.features",
    "FeatureStore": "storage.shards.store",
    "Failure": "storage.tables.failures",
    "FailureLog": "storage.tables.failures",
    "Score": "storage.tables.scores",
    "ScoreStore": "storage.tables.scores",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'storage' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
