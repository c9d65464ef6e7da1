"""Everything on disk: cached features, failures, models, scores and exported CSVs. Knows no video and no network."""

from storage.errors import StoreError
from storage.failures import Failure, FailureLog
from storage.families import Family
from storage.feature_store import FeatureStore
from storage.features import VideoFeatures
from storage.models import ModelSerializer
from storage.scores import Score, ScoreStore
from storage.trait_csv import read_trait_csv, write_trait_csv
from storage.trait_rows import TraitRow

__all__ = [
    "Failure",
    "FailureLog",
    "Family",
    "FeatureStore",
    "ModelSerializer",
    "Score",
    "ScoreStore",
    "StoreError",
    "TraitRow",
    "VideoFeatures",
    "read_trait_csv",
    "write_trait_csv",
]
