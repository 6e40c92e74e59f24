"""What every planner must beat: holding still, acting at random, doing what the learned prior says unsearched."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from planners.goal import Goal
from planners.objectives import Objective, default_objective
from planners.plan import Budget, Plan
from planners.planner import Planner, resting_action
from planners.search import Search
from planners.targets import Aimed, Targets, matched
from worldmodel.interface import Latent, WorldModel


@dataclass(frozen=True, kw_only=True)
class Floor(Planner):
    """Chooses without comparing; its one future is imagined only for the record."""

    horizon: int = 8
    looks_at_goal: ClassVar[bool] = False

    @abstractmethod
    def choose(self, model: WorldModel, latent: Tensor, goal: Tensor, generator: torch.Generator) -> Tensor:
        """(B, H, A) in [-1, 1]."""

    def plan(
        self,
        model: WorldModel,
        latent: Latent,
        goal: Aimed | Goal,
        budget: Budget,
        *,
        warm_start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Plan:
        """The actions of `choose`, with what the brain thinks of them."""
        began = time.perf_counter()
        goal = matched(goal.encode(model) if isinstance(goal, Goal) else goal, latent)
        # Told of one picture: of several the nearest; where there is none, the present.
        heading = goal.heading(model, latent) if isinstance(goal, Targets) else goal
        if heading is None and self.looks_at_goal:
            raise ValueError(f"planner {type(self).__name__.lower()} goes by a goal picture; a region alone shows none")
        if generator is None:
            generator = torch.Generator(device=latent.device).manual_seed(0)
        rest = resting_action(model, latent.device).expand(len(latent), self.horizon, -1)
        objective: Objective = default_objective()
        with torch.inference_mode():
            search = Search(
                model, latent, goal, objective, rest,
                keep=1, memory_mb=256.0, deadline=math.inf, clock=time.perf_counter,
            )  # fmt: skip
            told = latent if heading is None else heading
            search.evaluate(self.choose(model, latent, told, generator).clamp(-1.0, 1.0)[:, None])
            search.end_iteration()
        return search.to_plan(began, 1)


@dataclass(frozen=True, kw_only=True)
class Hold(Floor):
    """Moves nothing."""

    def choose(self, model: WorldModel, latent: Tensor, goal: Tensor, generator: torch.Generator) -> Tensor:
        """Rest."""
        return resting_action(model, latent.device).repeat(len(latent), self.horizon, 1)


@dataclass(frozen=True, kw_only=True)
class RandomActions(Floor):
    """Uniform actions."""

    def choose(self, model: WorldModel, latent: Tensor, goal: Tensor, generator: torch.Generator) -> Tensor:
        """Uniform in [-1, 1]."""
        size = model.action_space.size
        drawn = torch.rand(1, self.horizon, size, generator=generator, device=generator.device)
        return (2.0 * drawn - 1.0).to(latent.device).repeat(len(latent), 1, 1)


@dataclass(frozen=True, kw_only=True)
class Prior(Floor):
    """The brain's first proposal, unsearched: how far imitation alone gets."""

    looks_at_goal: ClassVar[bool] = True

    def choose(self, model: WorldModel, latent: Tensor, goal: Tensor, generator: torch.Generator) -> Tensor:
        """One draw of the learned prior, then rest."""
        proposal = model.propose(latent, goal, 1, generator)
        if proposal is None:
            raise ValueError(f"the model {model.name} proposes no actions; planner=prior needs one that does")
        actions = resting_action(model, latent.device).repeat(len(latent), self.horizon, 1)
        steps = min(self.horizon, proposal.shape[2])
        actions[:, :steps] = proposal[:, 0, :steps].to(actions)
        return actions
