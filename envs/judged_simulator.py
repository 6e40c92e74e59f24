"""The true simulator's futures through a learned brain's eyes: photographed, encoded, and judged by what it learned.

Everything but the prediction is the learned brain's: its eyes, its distances, its proposals, its reading of a goal from a
picture. Beside the learned brain itself it shows what prediction costs; beside the simulator with a ruler, what judging
costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from envs.simulator_model import SimulatorModel

# So many moments are remembered as the judge saw them: a plan's terms all ask about the same ones.
_REMEMBERED = 8192


class Judge(Protocol):
    """What a learned brain is asked."""

    @property
    def required_keys(self) -> tuple[str, ...]: ...
    def encode(self, observation: Mapping[str, Any]) -> torch.Tensor: ...
    def distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor: ...
    def feature_distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor: ...
    def state_distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor | None: ...
    def propose(
        self, latent: torch.Tensor, goal: torch.Tensor, n: int, generator: torch.Generator | None = None
    ) -> torch.Tensor | None: ...


class JudgedSimulator(SimulatorModel):
    """MuJoCo behind the interface of a world model, with a learned brain for a judge.

    Args:
        task: which world it is; how far it is to the goal, the judge says.
        action_space: shared with learned brains.
        judge: the learned brain; of cameras it may need the front one alone.
        threads: physics threads.
        image_size: side of the photographs.
    """

    name = "simulator_latent"

    def __init__(self, task: str, action_space: Any, judge: Judge, *, threads: int = 2, image_size: int = 64) -> None:
        strange = set(judge.required_keys) - {"observation.images.front", "observation.state"}
        if strange:
            raise ValueError(
                f"the judge needs {', '.join(sorted(strange))}; futures are photographed by the front camera alone"
            )
        super().__init__(task, action_space, threads=threads, image_size=image_size)
        self._judge = judge
        self._seen: dict[bytes, torch.Tensor] = {}
        self._wanted: dict[bytes, torch.Tensor] = {}

    def distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """The judge's learned steps to the goal: (B, *X, L), (B, L) -> (B, *X)."""
        return self._judge.distance(self.judged(latents), self.judged_goal(goal))

    def feature_distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """Of the judge's features: (B, *X, L), (B, L) -> (B, *X)."""
        return self._judge.feature_distance(self.judged(latents), self.judged_goal(goal))

    def state_distance(self, latents: torch.Tensor, goal: torch.Tensor) -> torch.Tensor | None:
        """Of the arm's pose from the one that the judge reads off the goal's photograph: (B, *X, L), (B, L) -> (B, *X)."""
        return self._judge.state_distance(self.judged(latents), self.judged_goal(goal))

    def features(self, latents: torch.Tensor) -> torch.Tensor | None:
        """The judge's, where it shows them: (B, *X, L) -> (B, *X, D)."""
        show = getattr(self._judge, "features", None)
        return None if show is None else show(self.judged(latents))

    def propose(
        self, latent: torch.Tensor, goal: torch.Tensor, n: int, generator: torch.Generator | None = None
    ) -> torch.Tensor | None:
        """What the judge learned to do there: (B, n, K, A), or None."""
        return self._judge.propose(self.judged(latent), self.judged_goal(goal), n, generator)

    def judged(self, latents: torch.Tensor) -> torch.Tensor:
        """The simulator's latents (B, *X, L) as the judge's (B, *X, *J): photographs, and the arm's own state."""
        return self._remembered(self._seen, latents, self._see)

    def judged_goal(self, goal: torch.Tensor) -> torch.Tensor:
        """Goals (B, L) as the judge's (B, *J): photographs alone, as a person gives them."""
        return self._remembered(self._wanted, goal, lambda rows: self._judge.encode(self._pictures(rows)))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _see(self, rows: torch.Tensor) -> torch.Tensor:
        return self._judge.encode({**self._pictures(rows), "observation.state": self.state(rows)})

    def _pictures(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"observation.images.front": self.decode(rows)}

    def _remembered(
        self, memory: dict[bytes, torch.Tensor], latents: torch.Tensor, see: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """What `see` makes of each moment, asked once for each."""
        rows = latents.reshape(-1, latents.shape[-1])
        names = [row.tobytes() for row in rows.numpy()]
        fresh = {name: number for number, name in enumerate(names) if name not in memory}
        if len(memory) + len(fresh) > _REMEMBERED:
            memory.clear()
            fresh = {name: number for number, name in enumerate(names)}
        if fresh:
            memory.update(zip(fresh, see(rows[list(fresh.values())]).unbind(), strict=True))
        return torch.stack([memory[name] for name in names]).reshape(*latents.shape[:-1], *memory[names[0]].shape)
