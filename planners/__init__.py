"""Searching in a brain's imagination: goals, objectives, planners, the receding-horizon agent, the record of it all."""

from planners.ahead import Ahead
from planners.background import Background
from planners.branches import Schedules
from planners.cem import CEM
from planners.cmaes import CMAES
from planners.floors import Hold, Prior, RandomActions
from planners.goal import Goal
from planners.gradient import Gradient
from planners.graph import LatentGraph
from planners.hybrid import Hybrid
from planners.icem import ICEM
from planners.mpc import MPC
from planners.mppi import MPPI
from planners.objectives import (
    ActionPenalty,
    FeatureDistance,
    LearnedDistance,
    Objective,
    RegionDistance,
    SmoothnessPenalty,
    StateDistance,
    UncertaintyPenalty,
    default_objective,
)
from planners.observation import ObservationError
from planners.plan import Budget, Plan
from planners.planner import Planner, SamplingPlanner
from planners.progress import Rule
from planners.region import Region
from planners.registry import make_objective, make_planner
from planners.rollout import PlanRecord, Rollout, RolloutError, StepRecord
from planners.shooting import RandomShooting
from planners.targets import Target, Targets
from planners.waypoints import Finder, Found, Route

__all__ = [
    "CEM",
    "CMAES",
    "ICEM",
    "MPC",
    "MPPI",
    "ActionPenalty",
    "Ahead",
    "Background",
    "Budget",
    "FeatureDistance",
    "Finder",
    "Found",
    "Goal",
    "Gradient",
    "Hold",
    "Hybrid",
    "LatentGraph",
    "LearnedDistance",
    "Objective",
    "ObservationError",
    "Plan",
    "PlanRecord",
    "Planner",
    "Prior",
    "RandomActions",
    "RandomShooting",
    "Region",
    "RegionDistance",
    "Rollout",
    "RolloutError",
    "Route",
    "Rule",
    "SamplingPlanner",
    "Schedules",
    "SmoothnessPenalty",
    "StateDistance",
    "StepRecord",
    "Target",
    "Targets",
    "UncertaintyPenalty",
    "default_objective",
    "make_objective",
    "make_planner",
]
