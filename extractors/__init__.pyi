from .assets.files import AssetError as AssetError
from .dynamic.extractor import DynamicFeatureExtractor as DynamicFeatureExtractor
from .dynamic.sequences import OpticalFlowSequenceLoader as OpticalFlowSequenceLoader
from .errors import VideoError as VideoError
from .optical_flow.computer import OpticalFlowComputer as OpticalFlowComputer
from .optical_flow.computer import loop_to as loop_to
from .optical_flow.computer import scale_for_i3d as scale_for_i3d
from .static.extractor import StaticFeatureExtractor as StaticFeatureExtractor

__version__: str
