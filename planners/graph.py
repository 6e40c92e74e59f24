"""A graph of what was recorded: where from where it is few steps, by the brain's own word, and the shortest way through.

A learned distance can be trusted over a few steps and hardly over many. So a long way is put together of short ones: the
frames of a recording are the nodes, an edge leads where the brain says it is near or where the recording went on to, and
the shortest way from the present to the goal, thinned, is a row of sub-goals.

Of many guesses a search finds the ones that are wrong in its favour. So what was recorded costs its steps, and a guess costs
the more the farther it goes: of two ways the one that was walked is better than the one that is said to be short. Straight
ahead is one of the ways.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from planners.waypoints import Found
from worldmodel.interface import Latent, WorldModel

_MEBIBYTE = 2**20


class Edge(NamedTuple):
    """A way on: to which node, in how many steps, and at what cost."""

    node: int
    steps: float
    cost: float


class LatentGraph:
    """N recorded latents and the short ways between them.

    Of every node only those nearest in features are asked for their distance: N x `neighbours` answers of the brain, not
    N x N.

    Args:
        model: the brain that made the latents.
        memory: (N, *L), on the model's device.
        onward: (N,) recorded steps from each latent to the next one, infinite where the recording did not go there (at an
            episode's end). What was done can be done, whatever the brain thinks of it. None: nothing is known of it.
        spacing: sub-goals lie about so many steps apart: what a plan reaches.
        reach: an edge is at most so many steps long; none means twice `spacing`. The last one, to the goal, may be longer:
            play seldom comes by where one wants to go, but often nearer.
        trusted: steps for which the brain is taken at its word; a guess of w steps costs w x w / `trusted` beyond that. None
            means `spacing`.
        neighbours: so many nodes are asked about each; four times as many about the present and about the goal.
        hop: what every edge costs beyond its steps: of two ways of one length the one with fewer frames is better, since
            every distance is a guess.
        memory_mb: bound on the latents that are compared at a time.
    """

    def __init__(
        self,
        model: WorldModel,
        memory: Tensor,
        onward: Tensor | None = None,
        *,
        spacing: float = 5.0,
        reach: float | None = None,
        trusted: float | None = None,
        neighbours: int = 32,
        hop: float = 0.5,
        memory_mb: float = 64.0,
    ) -> None:
        if memory.ndim != 1 + model.latent_ndim or not len(memory):
            raise ValueError(
                f"a graph is made of latents (N, {', '.join('*' * model.latent_ndim)}) of {model.name}, at least one; "
                f"got {tuple(memory.shape)}"
            )
        if not torch.isfinite(memory).all():
            bad = int((~torch.isfinite(memory.reshape(len(memory), -1)).all(1)).nonzero()[0, 0])
            raise ValueError(f"recorded latent {bad} has NaN or infinity; leave its frame out")
        if onward is not None and tuple(onward.shape) != (len(memory),):
            raise ValueError(f"onward should be ({len(memory)},), a number for each latent; got {tuple(onward.shape)}")
        reach = 2 * spacing if reach is None else reach
        trusted = spacing if trusted is None else trusted
        for name, value in (("spacing", spacing), ("reach", reach), ("trusted", trusted)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it is a number of steps above 0")
        if neighbours < 1 or hop < 0:
            raise ValueError(
                f"neighbours is {neighbours} and hop {hop}; at least 1 neighbour, and a hop costs 0 or more"
            )
        self.model, self.memory = model, memory
        self.spacing, self.reach, self.trusted, self.neighbours, self.hop = spacing, reach, trusted, neighbours, hop
        self._chunk = max(1, int(memory_mb * _MEBIBYTE) // (memory.numel() * memory.element_size()))
        with torch.no_grad():
            self._onward = self._edges()
        for node, steps in enumerate([] if onward is None else onward[:-1].tolist()):
            if 0 < steps <= reach:
                self._onward[node].append(Edge(node + 1, steps, steps))

    def __len__(self) -> int:
        return len(self.memory)

    @property
    def edges(self) -> int:
        """How many short ways are known."""
        return sum(len(ways) for ways in self._onward)

    def find_way(self, latent: Latent, goal: Latent) -> Found:
        """The shortest way from a present (1, *L) to a goal (1, *L), thinned to sub-goals; none, and why, where there is
        no way or no need of one."""
        with torch.no_grad():
            straight = float(self.model.distance(latent[:, None], goal)[0, 0])
            if straight <= self.spacing:
                return Found(self.memory[:0], f"the goal is {straight:.1f} steps away: no sub-goals are needed")
            begin, end = self._leaving(latent), self._entering(goal)
        nodes, steps = self._shortest(begin, end, straight)
        if not nodes:
            near = {node: edge for node, edge in end.items() if edge.steps <= self.reach}
            if self._shortest(begin, near, math.inf)[0]:
                return Found(self.memory[:0], f"straight ahead, {straight:.0f} steps, is as good as any recorded way")
            return Found(self.memory[:0], self._lost(begin, end))
        stops = [latent, *(self.memory[node : node + 1] for node in nodes), goal]

        def hidden(last: int, node: int) -> bool:
            # What the recording went round, the straight way from one sub-goal to the next must not cut off.
            return float(self.model.distance(stops[last + 1][:, None], stops[node + 1])[0, 0]) > self.reach

        with torch.no_grad():
            kept = [nodes[number] for number in thinned(steps, self.spacing, hidden)]
        words = (
            f"found a way of {_count(len(kept), 'sub-goal')} over {_count(len(nodes), 'recorded frame')}, "
            f"{sum(steps):.0f} steps; straight the goal is {straight:.0f} steps away"
        )
        return Found(self.memory[kept], words)

    # -- asking the brain ------------------------------------------------------------------------------------------

    def _edges(self) -> list[list[Edge]]:
        """For every node where one can go on to, by the brain's word."""
        onward: list[list[Edge]] = [[] for _ in self.memory]
        count = min(self.neighbours, len(self.memory) - 1)
        if not count:
            return onward
        for start in range(0, len(self.memory), self._chunk):
            goals = self.memory[start : start + self._chunk]
            apart = self._apart(goals)
            apart[torch.arange(len(goals)), torch.arange(start, start + len(goals))] = math.inf  # no way to itself
            near = apart.topk(count, largest=False).indices
            # The candidates' own latents are gathered, so in smaller parts: as many as one comparison holds.
            steps = torch.cat([
                self.model.distance(self.memory[rows], part).float()
                for rows, part in zip(near.split(self._part), goals.split(self._part), strict=True)
            ])  # fmt: skip
            for goal, (origins, ways) in enumerate(zip(near.tolist(), steps.tolist(), strict=True), start):
                for origin, way in zip(origins, ways, strict=True):
                    if origin != goal and way <= self.reach:
                        onward[origin].append(self._guess(goal, way))
        return onward

    @property
    def _part(self) -> int:
        return max(1, self._chunk * len(self.memory) // max(1, self.neighbours))

    def _apart(self, goals: Tensor) -> Tensor:
        """How features differ between all nodes and goals (G, *L): (G, N)."""
        every = self.memory[None].expand(len(goals), *self.memory.shape)
        return torch.nan_to_num(self.model.feature_distance(every, goals).float(), nan=math.inf)

    def _near(self, latent: Latent) -> Tensor:
        """The nodes that look most like a latent (1, *L): indices (K,)."""
        return self._apart(latent)[0].topk(min(4 * self.neighbours, len(self.memory)), largest=False).indices

    def _guess(self, node: int, steps: float) -> Edge:
        steps = max(steps, 0.0)
        return Edge(node, steps, steps * max(1.0, steps / self.trusted))

    def _leaving(self, latent: Latent) -> list[Edge]:
        """The ways from the present to the nodes within reach of it."""
        near = self._near(latent)
        here = latent.expand(len(near), *latent.shape[1:])[:, None]
        steps = self.model.distance(here, self.memory[near])[:, 0].float()
        return [
            self._guess(node, way) for node, way in zip(near.tolist(), steps.tolist(), strict=True) if way <= self.reach
        ]

    def _entering(self, goal: Latent) -> dict[int, Edge]:
        """The ways to the goal from the nodes that look most like it, however far."""
        near = self._near(goal)
        steps = self.model.distance(self.memory[near][None], goal)[0].float()
        pairs = zip(near.tolist(), steps.tolist(), strict=True)
        return {node: self._guess(len(self), way) for node, way in pairs if math.isfinite(way)}

    # -- the way ---------------------------------------------------------------------------------------------------

    def _shortest(self, begin: list[Edge], end: dict[int, Edge], straight: float) -> tuple[list[int], list[float]]:
        """Dijkstra from the present to the goal: the nodes between (K,), and the steps of each edge (K + 1,); none where
        straight ahead is as good."""
        goal, came_from, settled = len(self), dict[int, tuple[int, float]](), set[int]()
        ahead = [self._guess(goal, straight)] if math.isfinite(straight) else []
        # Of two ways of one cost the straight one is taken: it comes first.
        heap = [(edge.cost + self.hop, edge.node != goal, edge.node, -1, edge.steps) for edge in [*ahead, *begin]]
        heapq.heapify(heap)
        while heap:
            cost, _, node, before, steps = heapq.heappop(heap)
            if node in settled:
                continue
            settled.add(node)
            came_from[node] = (before, steps)
            if node == goal:
                break
            for edge in [*self._onward[node], *([end[node]] if node in end else [])]:
                if edge.node not in settled:
                    heapq.heappush(heap, (cost + edge.cost + self.hop, edge.node != goal, edge.node, node, edge.steps))
        if goal not in came_from:
            return [], []
        nodes, steps, node = [], [], goal
        while node >= 0:
            node, way = came_from[node]
            nodes.append(node)
            steps.append(way)
        return nodes[-2::-1], steps[::-1]

    def _lost(self, begin: list[Edge], end: dict[int, Edge]) -> str:
        """Why there is no way."""
        if not begin:
            why = f"none of the {len(self)} recorded frames is within {self.reach:g} steps of the present"
        elif all(edge.steps > self.reach for edge in end.values()):
            why = f"from none of the {len(self)} recorded frames is it within {self.reach:g} steps"
        else:
            why = (
                f"the {len(self)} recorded frames hang together too loosely ({self.edges} ways of {self.reach:g} steps)"
            )
        return f"no way to the goal was found: {why}; heading straight for it"


def thinned(
    steps: Sequence[float], spacing: float, hidden: Callable[[int, int], bool] = lambda last, node: False
) -> list[int]:
    """Which of K nodes to keep on a way of K + 1 edges, so that no two lie farther apart than need be.

    A node is kept where the next one, or the goal, would be more than `spacing` steps on from the last one kept, or
    `hidden` from it: asked of the last node kept (-1 the present) and the next one (K the goal).

    >>> thinned([2, 2, 2, 2, 2], 5)
    [1, 3]
    """
    kept, last, since = [], -1, 0.0
    for node, step in enumerate(steps):
        if node and (since + step > spacing or hidden(last, node)):
            last, since = node - 1, 0.0
            kept.append(last)
        since += step
    return kept


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
