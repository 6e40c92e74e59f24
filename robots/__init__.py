"""Acting: arms behind one interface, the guard between a plan and an arm, the loop, and the black box."""

from robots.arm import Arm, JointTarget, Reading, connect
from robots.guard import Guard, Verdict
from robots.limits import Limits

__all__ = ["Arm", "Guard", "JointTarget", "Limits", "Reading", "Verdict", "connect"]
