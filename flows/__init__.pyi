from .archive.clips import clip_tokens as clip_tokens
from .archive.models import load_model as load_model
from .config.load import load_config as load_config
from .config.settings import RunConfig as RunConfig
from .extraction.features import extract_features as extract_features
from .session.errors import UserError as UserError

__version__: str
