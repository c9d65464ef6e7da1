from .computer import OpticalFlowComputer as OpticalFlowComputer
from .computer import loop_to as loop_to
from .computer import scale_for_i3d as scale_for_i3d
from .parameters import OpticalFlowSettings as OpticalFlowSettings
