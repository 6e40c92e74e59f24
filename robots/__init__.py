"""Acting: arms behind one interface, the guard between a plan and an arm, the loop, and the black box."""

import os

# Before anything of this room imports mujoco: it decides at its import how it renders.
os.environ.setdefault("MUJOCO_GL", "egl")

from robots.arm import Arm, JointTarget, Reading, connect
from robots.guard import Guard, Verdict
from robots.limits import Limits

__all__ = ["Arm", "Guard", "JointTarget", "Limits", "Reading", "Verdict", "connect"]
