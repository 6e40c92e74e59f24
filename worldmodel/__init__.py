"""The brain: what every world model answers, the native model, its data, training and checkpoints."""

from worldmodel.checkpoint import load
from worldmodel.interface import ActionSpace, WorldModel

__all__ = ["ActionSpace", "WorldModel", "load"]
