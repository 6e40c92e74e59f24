"""Worlds to act in: the tabletop in two simulators, play policies, collection, and the true simulator as a brain.

Importing this package registers the worlds with Gymnasium; the simulators themselves are imported only when a
world is made.
"""

import os

import gymnasium

# Off-screen rendering needs a backend chosen before mujoco is first imported; EGL is the fastest one without a display.
os.environ.setdefault("MUJOCO_GL", "egl")

gymnasium.register(id="premotor/Tabletop-v0", entry_point="envs.tabletop_env:TabletopEnv")
