from .extractor import DynamicFeatureExtractor as DynamicFeatureExtractor
from .sequences import OpticalFlowSequenceLoader as OpticalFlowSequenceLoader
from .settings import ASSET as ASSET
from .settings import FEATURES as FEATURES
from .settings import REVISION as REVISION
from .settings import DynamicSettings as DynamicSettings
