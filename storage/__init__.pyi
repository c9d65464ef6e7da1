from .errors import StoreError as StoreError
from .exports.columns import Unscored as Unscored
from .models.serializer import ModelSerializer as ModelSerializer
from .shards.family import Family as Family
from .shards.features import VideoFeatures as VideoFeatures
from .shards.store import FeatureStore as FeatureStore
from .tables.failures import Failure as Failure
from .tables.failures import FailureLog as FailureLog
from .tables.scores import Score as Score
from .tables.scores import ScoreStore as ScoreStore

__version__: str
