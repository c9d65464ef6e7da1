"""Everything on disk: cached features, failures, models, scores and exported CSVs.

Names are loaded on first use, so that paths and errors can be used without the libraries that tables and shards need.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.errors import StoreError as StoreError
    from storage.exports.columns import Unscored as Unscored
    from storage.exports.csv import read_trait_csv as read_trait_csv
    from storage.exports.csv import write_trait_csv as write_trait_csv
    from storage.models.serializer import ModelSerializer as ModelSerializer
    from storage.shards.family import Family as Family
    from storage.shards.features import VideoFeatures as VideoFeatures
    from storage.shards.store import FeatureStore as FeatureStore
    from storage.tables.failures import Failure as Failure
    from storage.tables.failures import FailureLog as FailureLog
    from storage.tables.scores import Score as Score
    from storage.tables.scores import ScoreStore as ScoreStore

_MODULE_OF = {
    "StoreError": "storage.errors",
    "read_trait_csv": "storage.exports.csv",
    "write_trait_csv": "storage.exports.csv",
    "Unscored": "storage.exports.columns",
    "ModelSerializer": "storage.models.serializer",
    "Family": "storage.shards.family",
    "VideoFeatures": "storage.shards.features",
    "FeatureStore": "storage.shards.store",
    "Failure": "storage.tables.failures",
    "FailureLog": "storage.tables.failures",
    "Score": "storage.tables.scores",
    "ScoreStore": "storage.tables.scores",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'storage' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
