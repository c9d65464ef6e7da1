"""All kinds of model that `traitline train` makes; importing this registers their classes with Keras."""

from __future__ import annotations

from fusion.model.bilinear import BilinearPersonalityModel
from fusion.model.model import CompletePersonalityModel

PersonalityModel = BilinearPersonalityModel | CompletePersonalityModel
