from .extractor import StaticFeatureExtractor as StaticFeatureExtractor
from .settings import ASSET as ASSET
from .settings import FEATURES as FEATURES
from .settings import REVISION as REVISION
from .settings import StaticSettings as StaticSettings
