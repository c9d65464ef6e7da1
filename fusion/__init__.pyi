from .clips.tokens import ClipTokens as ClipTokens
from .clips.tokens import pad_batch as pad_batch
from .errors import InputError as InputError
from .model.layers import CrossAttention as CrossAttention
from .model.layers import FeatureFusionModule as FeatureFusionModule
from .model.layers import PersonalityPredictionHead as PersonalityPredictionHead
from .model.model import CompletePersonalityModel as CompletePersonalityModel
from .model.scoring import predict as predict
from .pictures.attention import get_attention_weights as get_attention_weights
from .pictures.attention import plot_attention_map as plot_attention_map
from .traits import TRAITS as TRAITS

__version__: str
