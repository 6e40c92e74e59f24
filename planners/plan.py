"""What a search may cost and what it gives back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Budget:
    """What a plan may cost: `samples` futures in each of `iterations`, and wall time where it matters."""

    samples: int = 128
    iterations: int = 3
    deadline_ms: float | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or self.iterations < 1:
            raise ValueError(
                f"a budget of {self.samples} samples x {self.iterations} iterations imagines nothing; "
                "both must be 1 or more"
            )
        if self.deadline_ms is not None and not self.deadline_ms > 0:
            raise ValueError(f"deadline_ms is {self.deadline_ms}; it must be above 0, or null for none")

    @property
    def futures(self) -> int:
        """Futures per environment, the deadline permitting."""
        return self.samples * self.iterations


@dataclass(frozen=True)
class Plan:
    """What a search found, and how. B environments, H steps, A action, K elites, I iterations.

    Attributes:
        actions: (B, H, A) in [-1, 1].
        cost: (B,); infinite where the plan is to hold because no future could be judged.
        terms: the cost by term of the objective, each (B,).
        elites: (B, K, H, A) the best futures seen, best first.
        elite_costs: (B, K); infinite where fewer than K could be judged.
        cost_per_iteration: (B, I) the best cost seen until then.
        imagined: (B, H, *L) the future of `actions`.
        uncertainty: (B, H) the brain's doubt along that future, or None where it has no opinion.
        held: (B,) where the plan is to hold.
        futures: futures imagined per environment.
        plan_ms: wall time of the search, without its warm-up.
        warm_up_ms: wall time that capturing its iterations took; 0 where that was done before, or is not done.
        captured: whether its iterations were captured: compiled, or recorded and replayed.
        stopped: why the search ended, in words.
        out_of_time: whether the deadline ended it.
        discarded: futures that were not finite, over the whole batch.
        branch: the gripper's schedule that each environment's actions follow, in words; None where none were searched.
    """

    actions: Tensor
    cost: Tensor
    terms: dict[str, Tensor]
    elites: Tensor
    elite_costs: Tensor
    cost_per_iteration: Tensor
    imagined: Tensor
    uncertainty: Tensor | None
    held: Tensor
    futures: int
    plan_ms: float
    stopped: str
    out_of_time: bool
    discarded: int
    branch: tuple[str, ...] | None = None
    warm_up_ms: float = 0.0
    captured: bool = False

    def remaining(self, executed: int = 1) -> Tensor:
        """What is left of the actions after `executed` steps, (B, H - executed, A): the next search's warm start."""
        return self.actions[:, executed:]

    def later(self, executed: int) -> Plan:
        """The same plan after `executed` of its steps, fewer than H; what was discarded was counted when it began."""
        if not 0 <= executed < self.actions.shape[1]:
            raise ValueError(f"of a plan of {self.actions.shape[1]} steps nothing is left after {executed}")
        if executed == 0:
            return self
        return replace(
            self,
            actions=self.actions[:, executed:],
            elites=self.elites[:, :, executed:],
            imagined=self.imagined[:, executed:],
            uncertainty=None if self.uncertainty is None else self.uncertainty[:, executed:],
            discarded=0,
        )

    def digest(self) -> str:
        """A name for exactly these actions."""
        return hashlib.sha256(self.actions.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
