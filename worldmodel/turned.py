"""A brain whose camera stands turned about the vertical: it is asked, and answers, in its own frame.

A brain trained with one camera takes the picture of a camera further round for a world that is turned the other way.
Turned back, what the arm tells of itself and what it is told agree again with what is seen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worldmodel.interface import (
    ActionSpace,
    Featured,
    GoalSight,
    Latent,
    Observation,
    Proprioceptive,
    Watchful,
    WorldModel,
)

STATE = "observation.state"
# Where the numbers lie that turn with the world: positions and yaw of the state; pairs of the action.
_STATE_SIZE, _YAW = 7, 5
_PAIRS = ((0, 1), (3, 4))


class Turned:
    """Another brain, with its horizontal axes turned by an angle.

    An action of the arm is the brain's own action turned by the angle; the arm's pose is turned back, about the pivot,
    before the brain hears of it.

    Args:
        model: the brain; its actions begin with dx, dy, and its state is x, y, z, roll, pitch, yaw, gripper.
        angle_rad: from the brain's axes to the arm's, counterclockwise seen from above: how far the camera was moved
            round the pivot.
        pivot: (x, y), m: the place on the table that the camera looks at.
    """

    def __init__(self, model: WorldModel, angle_rad: float, pivot: tuple[float, float] = (0.48, 0.0)) -> None:
        space = model.action_space
        if space.names[:2] != ("dx", "dy") or space.size != _STATE_SIZE:
            raise ValueError(
                f"{model.name} acts in ({', '.join(space.names)}); only actions dx, dy, dz, droll, dpitch, dyaw, "
                "dgripper can be turned"
            )
        for one, other in _PAIRS:
            if (space.low[one], space.high[one]) != (space.low[other], space.high[other]):
                raise ValueError(
                    f"{space.names[one]} and {space.names[other]} have other bounds; they cannot be turned"
                )
        if not math.isfinite(angle_rad):
            raise ValueError(f"the angle is {angle_rad}; it is a number of radians")
        self.model = model
        self.angle_rad = angle_rad
        self.pivot = pivot

    # -- what is turned --------------------------------------------------------------------------------------------

    def encode(self, observation: Observation) -> Latent:
        """As the brain's, the arm's pose turned into its frame."""
        if STATE not in observation:
            return self.model.encode(observation)
        state = torch.as_tensor(observation[STATE])
        if state.ndim == 2 and state.shape[1] == _STATE_SIZE:  # else the brain says what is wrong with it
            state = self._turned_state(state, -self.angle_rad)
        return self.model.encode({**observation, STATE: state})

    def state(self, latents: Tensor) -> Tensor | None:
        """What the brain imagines, turned to where the arm is."""
        state = self.model.state(latents) if isinstance(self.model, Proprioceptive) else None
        return None if state is None else self._turned_state(state, self.angle_rad)

    def state_scale(self) -> Tensor:
        """The brain's; both horizontal positions count alike, which a turn mixes."""
        if not isinstance(self.model, Proprioceptive):
            raise ValueError(f"{self.model.name} does not imagine the arm's state")
        scale = self.model.state_scale().clone()
        scale[:2] = scale[:2].square().mean().sqrt()
        return scale

    def _turned_state(self, state: Tensor, angle_rad: float) -> Tensor:
        """States (..., 7), positions turned about the pivot and yaw with them."""
        pivot = state.new_tensor(self.pivot)
        place = _turned(state[..., :2] - pivot, angle_rad) + pivot
        yaw = torch.remainder(state[..., _YAW] + angle_rad + math.pi, 2 * math.pi) - math.pi
        return torch.cat([place, state[..., 2:_YAW], yaw[..., None], state[..., _YAW + 1 :]], -1)

    def predict(self, latent: Latent, actions: Tensor) -> Tensor:
        """As the brain's, for the arm's actions."""
        return self.model.predict(latent, _turned_actions(actions, -self.angle_rad))

    def propose(self, latent: Latent, goal: Latent, n: int, generator: torch.Generator | None = None) -> Tensor | None:
        """What the brain proposes, as actions of the arm; shortened where turning leads out of bounds."""
        proposed = self.model.propose(latent, goal, n, generator)
        if proposed is None:
            return None
        proposed = _turned_actions(proposed, self.angle_rad)
        for pair in _PAIRS:  # both numbers alike, so that the direction stays
            among = [*pair]
            most = proposed[..., among].abs().amax(-1, keepdim=True)
            proposed[..., among] = proposed[..., among] / most.clamp(min=1.0)
        return proposed

    # -- what is not -----------------------------------------------------------------------------------------------

    def watch(self, goal: Latent) -> GoalSight | None:
        """As the brain does: what was encoded is in its frame already."""
        return self.model.watch(goal) if isinstance(self.model, Watchful) else None

    def features(self, latents: Tensor) -> Tensor | None:
        """The brain's, where it shows them."""
        return self.model.features(latents) if isinstance(self.model, Featured) else None

    @property
    def name(self) -> str:
        """The brain's, and by how much it is turned."""
        return f"{self.model.name} turned by {math.degrees(self.angle_rad):.0f} degrees"

    @property
    def action_space(self) -> ActionSpace:
        """The brain's."""
        return self.model.action_space

    @property
    def device(self) -> torch.device:
        """The brain's."""
        return self.model.device

    @property
    def required_keys(self) -> tuple[str, ...]:
        """The brain's."""
        return self.model.required_keys

    @property
    def latent_ndim(self) -> int:
        """The brain's."""
        return self.model.latent_ndim

    def distance(self, latents: Tensor, goal: Latent) -> Tensor:
        """The brain's."""
        return self.model.distance(latents, goal)

    def feature_distance(self, latents: Tensor, goal: Latent) -> Tensor:
        """The brain's."""
        return self.model.feature_distance(latents, goal)

    def state_distance(self, latents: Tensor, goal: Latent) -> Tensor | None:
        """The brain's."""
        return self.model.state_distance(latents, goal)

    def uncertainty(self, latents: Tensor) -> Tensor | None:
        """The brain's."""
        return self.model.uncertainty(latents)

    def decode(self, latents: Tensor) -> Tensor | None:
        """The brain's."""
        return self.model.decode(latents)


def _turned(xy: Tensor, angle_rad: float) -> Tensor:
    """(..., 2) turned counterclockwise."""
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    x, y = xy.unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1)


def _turned_actions(actions: Tensor, angle_rad: float) -> Tensor:
    """(..., A): horizontal motion and the two tilts, turned alike."""
    actions = actions.clone()
    for one, other in _PAIRS:
        among = slice(one, other + 1)  # side by side; a list of places would be carried to the device each time
        actions[..., among] = _turned(actions[..., among], angle_rad)
    return actions
