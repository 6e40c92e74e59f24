"""The true simulator as a brain: the upper bound, and the tool for finding causes.

It answers like every world model (encode, predict, distance, ...) without importing one. Its latent is the world's own
state, its futures are MuJoCo's, its distance is measured with a ruler. When a task fails with this brain, the task,
the goal, the objective, the search or the control is at fault; when it fails only with a learned one, the learning is.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch

from envs import tasks
from envs.motion import COMMAND_SIZE, Command
from envs.mujoco_world import STATE_SPEC, BatchedFutures
from envs.play import FINGER_HALF_M, FINGERTIP_HEIGHT_M
from envs.tabletop import ACTION_HIGH, SCENE_SIZE, Scene

_HEAD = SCENE_SIZE + COMMAND_SIZE
# One policy step moves the tool at most this far: metres become steps.
_STEP_M = float(ACTION_HIGH[0])


class SimulatorModel:
    """MuJoCo behind the interface of a world model.

    Args:
        task: whose distance to measure.
        action_space: the brain's action space object (duck-typed: `to_physical`), shared with learned brains.
        threads: physics threads.
        image_size: side of the photographs it decodes to.
    """

    name = "simulator"
    required_keys = ("simulator.state",)
    latent_ndim = 1

    def __init__(self, task: str, action_space: Any, *, threads: int = 2, image_size: int = 64) -> None:
        self.task = tasks.get_task(task)
        self.action_space = action_space
        self.device = torch.device("cpu")
        self._futures = BatchedFutures(threads)
        self._world = self._futures.world
        self._image_size = image_size
        self._scene: Scene | None = None

    # -- the brain's interface -------------------------------------------------------------------------------------

    def encode(self, observation: Mapping[str, Any]) -> torch.Tensor:
        """(B, L) float64: scene, command and full physics of `simulator.state` (B, N)."""
        if "simulator.state" not in observation:
            raise ValueError(
                "the simulator as a brain needs observation['simulator.state'] (env.unwrapped.save_state())"
            )
        states = np.asarray(observation["simulator.state"], dtype=np.float64)
        if states.ndim != 2 or states.shape[1] != self._world.state_size:
            raise ValueError(f"simulator.state should be (B, {self._world.state_size}); got {states.shape}")
        if not np.isfinite(states).all():
            raise ValueError("simulator.state has NaN or infinity")
        rows = []
        for state in states:
            self._hold_scene(state)
            mujoco.mj_setState(self._world.model, self._world.data, state[_HEAD:], STATE_SPEC)
            physics = np.zeros(self._futures.full_size)
            mujoco.mj_getState(self._world.model, self._world.data, physics, int(mujoco.mjtState.mjSTATE_FULLPHYSICS))
            rows.append(np.concatenate([state[:_HEAD], physics]))
        return torch.from_numpy(np.stack(rows))

    def predict(self, latent: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """(B, L), actions (B, S, H, 7) in [-1, 1] -> (B, S, H, L)."""
        physical = self.action_space.to_physical(actions).detach().cpu().numpy().astype(np.float64)
        batch, samples, horizon, _ = physical.shape
        out = np.zeros((batch, samples, horizon, latent.shape[-1]))
        for b in range(batch):
            head = latent[b].numpy()
            self._hold_scene(head)
            command = Command.from_vector(np.tile(head[SCENE_SIZE:_HEAD], (samples, 1)))
            physics = np.tile(head[_HEAD:], (samples, 1))
            out[b, :, :, :SCENE_SIZE] = head[:SCENE_SIZE]
            for h in range(horizon):
                physics, command = self._futures.step(physics, command, physical[b, :, h])
                out[b, :, h, SCENE_SIZE:_HEAD] = command.to_vector()
                out[b, :, h, _HEAD:] = physics
        return torch.from_numpy(out)

    def distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Policy steps still needed, roughly, by the ruler: (B, *X, L), (B, L) -> (B, *X) float32."""
        flat = latents.reshape(latents.shape[0], -1, latents.shape[-1]).numpy()
        rows = [self._steps_to_goal(flat[b], goal[b].numpy()) for b in range(flat.shape[0])]
        return torch.from_numpy(np.stack(rows)).to(torch.float32).reshape(latents.shape[:-1])

    def feature_distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Squared metres between tools plus between objects (decimetres, so that it is of order one)."""
        flat = latents.reshape(latents.shape[0], -1, latents.shape[-1]).numpy()
        rows = []
        for b in range(flat.shape[0]):
            tool, thing, _ = self._read(flat[b])
            goal_tool, goal_thing, _ = self._read(goal[b : b + 1].numpy())
            rows.append(100.0 * (((tool - goal_tool) ** 2).sum(-1) + ((thing - goal_thing) ** 2).sum(-1)))
        return torch.from_numpy(np.stack(rows)).to(torch.float32).reshape(latents.shape[:-1])

    def state_distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor | None:
        """The true distances above hold the arm's place already."""
        return

    def features(self, latents: torch.Tensor) -> torch.Tensor | None:
        """A ruler sees no features."""
        return

    def state(self, latents: torch.Tensor) -> torch.Tensor:
        """What the arm would measure, `observation.state`: (B, *X, L) -> (B, *X, 7) float32, m, rad, closedness."""
        state = self._futures.states(latents.reshape(-1, latents.shape[-1]).numpy()[:, _HEAD:])
        return torch.from_numpy(state).to(torch.float32).reshape(*latents.shape[:-1], -1)

    def state_scale(self) -> torch.Tensor:
        """The most that one policy step changes of it, (7,)."""
        return torch.from_numpy(ACTION_HIGH.copy())

    def propose(
        self, latent: torch.Tensor, goal: torch.Tensor, n: int, generator: torch.Generator | None = None
    ) -> torch.Tensor | None:
        """The simulator has no learned prior over actions."""
        return

    def uncertainty(self, latents: torch.Tensor) -> None:
        """The truth does not doubt itself."""
        return

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Photographs (B, *X, size, size, 3) uint8 of latents (B, *X, L)."""
        flat = latents.reshape(-1, latents.shape[-1]).numpy()
        pictures = np.stack([self._photograph(row) for row in flat])
        return torch.from_numpy(pictures).reshape(*latents.shape[:-1], *pictures.shape[1:])

    # -- inside ----------------------------------------------------------------------------------------------------

    def _hold_scene(self, vector: np.ndarray) -> None:
        scene = Scene.from_vector(vector[:SCENE_SIZE])
        if scene != self._scene:
            self._world.set_scene_fields(scene)
            self._scene = scene

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tool (N, 3), object (N, 3), gripper closedness (N,)."""
        physics = rows[:, _HEAD:]
        tool, gripper = self._futures.measure(physics)
        return tool, self._futures.object_positions(physics), gripper

    def _steps_to_goal(self, rows: np.ndarray, goal: np.ndarray) -> np.ndarray:
        tool, thing, gripper = self._read(rows)
        goal_tool, goal_thing, _ = self._read(goal[None])
        if self.task.subject == "tool":
            return np.linalg.norm(tool - goal_tool, axis=1) / _STEP_M
        apart = np.linalg.norm(thing - goal_thing, axis=1)
        if self.task.name == "push":
            way = self._way_round(tool, thing, goal_thing, Scene.from_vector(rows[0, :SCENE_SIZE]))
        else:
            # Hands first: reach the object and close on it; carried, it costs what the object still has to travel.
            near = np.linalg.norm(tool - thing, axis=1)
            way = near + np.where(near < 0.03, 0.03 * (1.0 - np.minimum(gripper / 0.35, 1.0)), 0.03)
        return apart / (0.8 * _STEP_M) + np.where(apart < 0.01, 0.0, 0.5 * way / _STEP_M)

    def _way_round(self, tool: np.ndarray, thing: np.ndarray, goal: np.ndarray, scene: Scene) -> np.ndarray:
        """Metres (N,) the tool has to go to stand behind the object, round it where it is in the way."""
        aim = (goal - thing)[:, :2]
        aim = aim / np.maximum(np.linalg.norm(aim, axis=1, keepdims=True), 1e-6)
        radius = float(np.linalg.norm(scene.object_half[:2])) + FINGER_HALF_M
        behind = np.concatenate([thing[:, :2] - aim * radius, np.full((len(aim), 1), FINGERTIP_HEIGHT_M)], axis=1)
        offset = tool - behind
        ahead = (offset[:, :2] * aim).sum(1)
        aside = np.linalg.norm(offset[:, :2] - ahead[:, None] * aim, axis=1)
        # Standing in front of where it should stand, the tool must go out to the side first, or over.
        detour = np.maximum(ahead - 0.01, 0.0) * np.clip(1.5 * radius - aside, 0.0, None) / radius
        return np.linalg.norm(offset, axis=1) + detour

    def _photograph(self, row: np.ndarray) -> np.ndarray:
        self._hold_scene(row)
        mujoco.mj_setState(self._world.model, self._world.data, row[_HEAD:], int(mujoco.mjtState.mjSTATE_FULLPHYSICS))
        mujoco.mj_kinematics(self._world.model, self._world.data)
        mujoco.mj_camlight(self._world.model, self._world.data)
        return self._world.render("front", self._image_size)
