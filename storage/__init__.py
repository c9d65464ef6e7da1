"""Everything on disk: cached features, failures, models, scores and exported CSVs. Knows no video and no network."""

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
