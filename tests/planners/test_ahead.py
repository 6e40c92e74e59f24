"""Planning ahead: what is decided now begins later, from where the brain expects to be; nothing waits, nothing jumps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest
import torch

from planners import CEM, MPC, Ahead, Background, Budget, FeatureDistance, Goal, Objective, ObservationError, Plan

PLANNER = CEM(horizon=6, objective=Objective(go=FeatureDistance(final=1.0, summed=0.1)))
BUDGET = Budget(64, 3)
GOAL = (0.6, -0.5, 0.2)
Observe = Callable[..., dict[str, np.ndarray]]


def drive(agent: MPC, observe: Observe, steps: int, place: Any = (0.0, 0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """The places (steps + 1, 3) the point is led through, and the actions (steps, 3)."""
    places: list[np.ndarray] = [np.array(place, np.float32)]
    actions = []
    for _ in range(steps):
        action = agent.act(observe(*places[-1]))
        actions.append(action)
        places.append(places[-1] + 0.25 * agent.model.action_space.to_unit(torch.from_numpy(action)).numpy())
    return np.stack(places), np.stack(actions)


def goal(observe: Observe, *place: float) -> Goal:
    return Goal.from_observation(observe(*(place or GOAL)))


class ByHand(Executor):
    """Runs what it is given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Any, /, *args: Any, **words: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, lambda: fn(*args, **words)))
        return future

    def turn(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future, work in waiting:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)


# -- the pure core -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [1, 2, 3])
def test_a_plan_begins_where_the_brain_expected_to_be(point: Any, observe: Observe, delay: int) -> None:
    agent = Ahead(point(), PLANNER, goal(observe), BUDGET, delay=delay)
    places: list[np.ndarray] = [np.zeros(3, np.float32)]
    actions = []
    for step in range(4 * delay):
        action = agent.act(observe(*places[-1]))
        if step < delay:
            assert agent.holds == {0: "no plan is ready yet"}
            assert agent.events() == ("holding: no plan is ready yet",)
            assert agent.last_plan is None
        else:
            assert agent.holds == {}
            assert agent.asked is not None
            assert agent.last_plan is not None
            # With a brain that is never wrong, the plan at hand is about exactly here and says what is done.
            np.testing.assert_allclose(agent.asked[0][0].numpy(), places[-1], atol=1e-6)
            chosen = agent.model.action_space.to_physical(agent.last_plan.actions[0, 0]).numpy()
            np.testing.assert_array_equal(action, chosen)
            assert agent.last_plan.actions.shape[1] == 6 - step % delay
        actions.append(action)
        places.append(places[-1] + 0.25 * agent.model.action_space.to_unit(torch.from_numpy(action)).numpy())
    assert agent.late == 0
    np.testing.assert_array_equal(np.stack(actions)[:delay], 0.0)


def test_it_arrives_and_without_foresight_it_goes_too_far(point: Any, observe: Observe) -> None:
    far = goal(observe, 0.6, 0.0, 0.0)
    foreseen, _ = drive(Ahead(point(), PLANNER, far, BUDGET), observe, 12)
    stale, _ = drive(Ahead(point(), PLANNER, far, BUDGET, foresee=False), observe, 12)
    np.testing.assert_allclose(foreseen[-1], [0.6, 0.0, 0.0], atol=0.06)
    assert np.abs(stale[:, 0]).max() > 0.6 + 0.1
    assert np.abs(foreseen[:, 0]).max() < 0.6 + 0.06


@pytest.mark.parametrize("delay", [1, 2])
def test_the_same_seed_acts_the_same_and_reset_begins_again(point: Any, observe: Observe, delay: int) -> None:
    agent = Ahead(point(), PLANNER, goal(observe), BUDGET, seed=3, delay=delay)
    first = drive(agent, observe, 5)[1]
    agent.reset()
    np.testing.assert_array_equal(first, drive(agent, observe, 5)[1])
    other = Ahead(point(), PLANNER, goal(observe), BUDGET, seed=4, delay=delay)
    assert not np.array_equal(first, drive(other, observe, 5)[1])
    agent.set_goal(goal(observe, -0.6))
    assert np.abs(agent.act(observe())).max() == 0
    assert agent.holds == {0: "no plan is ready yet"}


def test_a_search_begins_with_what_will_be_left_of_the_last(point: Any, observe: Observe) -> None:
    starts: list[torch.Tensor | None] = []

    class Spy(CEM):
        def plan(self, *args: Any, warm_start: torch.Tensor | None = None, **words: Any) -> Plan:
            starts.append(warm_start)
            return super().plan(*args, warm_start=warm_start, **words)

    agent = Ahead(point(), Spy(horizon=6), goal(observe), BUDGET, delay=2)
    for _ in range(3):
        agent.act(observe())
    assert agent.last_plan is not None
    assert starts[0] is None
    assert starts[1] is not None
    torch.testing.assert_close(starts[1], agent.last_plan.actions[:, 2:])


def test_it_acts_for_many_as_for_each(point: Any, observe: Observe) -> None:
    places = [(0.0, 0.0, 0.0), (0.3, 0.3, 0.3), (-0.5, 0.1, 0.0)]
    goals = [goal(observe, *np.roll(place, 1) + 0.2) for place in places]
    many = Ahead(point(), PLANNER, Goal.stack(goals), BUDGET, seed=1, delay=2)
    singles = [Ahead(point(), PLANNER, one, BUDGET, seed=1, delay=2) for one in goals]
    for _ in range(6):
        together = many.act_batch([observe(*place) for place in places])
        for index, single in enumerate(singles):
            np.testing.assert_array_equal(together[index], single.act(observe(*places[index])))
    with pytest.raises(ValueError, match="acted for 3 environments and now for 1; call reset"):
        many.act(observe())


def test_who_saw_nothing_holds_until_there_is_a_plan_that_knows_it_held(point: Any, observe: Observe) -> None:
    agent = Ahead(point(), PLANNER, goal(observe), BUDGET, delay=2)
    moved = []
    for step in range(8):
        # Blind at 3, in the middle of the plan begun at 0; the plan begun at 2 counted on what was not done at 3.
        actions = agent.act_batch([observe(np.nan if step == 3 else 0.1), observe(0.1)])
        moved.append([bool(np.abs(one).max() > 0) for one in actions])
        if step == 3:
            assert agent.holds == {0: "observation.state has NaN or infinity in dimension 0"}
        if step in (4, 5):
            assert "waiting for a plan that knows it held: observation.state" in agent.holds[0]
            assert agent.events(0)[0].startswith("holding: waiting")
        assert 1 not in agent.holds or step < 2
    assert [one[0] for one in moved] == [False, False, True, False, False, False, True, True]
    assert [one[1] for one in moved] == [False, False, True, True, True, True, True, True]


def test_blind_from_the_beginning_it_plans_as_soon_as_it_sees(point: Any, observe: Observe) -> None:
    agent = Ahead(point(), PLANNER, goal(observe), BUDGET, delay=2)
    moved = [np.abs(agent.act(observe(np.nan if step < 3 else 0.0))).max() > 0 for step in range(6)]
    assert moved == [False, False, False, False, False, True]
    assert agent.holds == {}


def test_a_plan_to_hold_is_held_and_said(point: Any, observe: Observe) -> None:
    agent = Ahead(
        point(spoil=lambda actions: torch.ones(actions.shape[:2], dtype=torch.bool)), PLANNER, goal(observe), BUDGET
    )
    for _ in range(3):
        np.testing.assert_array_equal(agent.act(observe()), np.zeros(3))
    assert "no future was finite" in agent.holds[0]


def test_what_cannot_be_is_refused(point: Any, observe: Observe) -> None:
    for delay, sentence in ((0, "delay is 0; planning ahead takes 1 step or more"), (7, "delay at most 6")):
        with pytest.raises(ValueError, match=sentence):
            Ahead(point(), PLANNER, goal(observe), BUDGET, delay=delay)
    with pytest.raises(ObservationError, match=r"observation\.state is missing"):
        Ahead(point(), PLANNER, goal(observe), BUDGET).act({k: v for k, v in observe().items() if "state" not in k})
    with pytest.raises(ValueError, match="patience is -1"):
        Background(point(), PLANNER, goal(observe), BUDGET, patience=-1)


# -- the thin shell ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [1, 2])
def test_in_time_the_background_does_what_the_core_does(point: Any, observe: Observe, delay: int) -> None:
    core = drive(Ahead(point(), PLANNER, goal(observe), BUDGET, seed=5, delay=delay), observe, 7)[1]
    worker = ByHand()
    agent = Background(point(), PLANNER, goal(observe), BUDGET, seed=5, delay=delay, worker=worker)
    place, actions = np.zeros(3, np.float32), []
    for _ in range(7):
        actions.append(agent.act(observe(*place)))
        worker.turn()
        place = place + 0.25 * agent.model.action_space.to_unit(torch.from_numpy(actions[-1])).numpy()
    np.testing.assert_array_equal(np.stack(actions), core)
    assert agent.late == 0


def test_a_thread_thinks_and_is_gone_afterwards(point: Any, observe: Observe) -> None:
    core = drive(Ahead(point(), PLANNER, goal(observe), BUDGET, seed=5), observe, 4)[1]
    before = threading.active_count()
    with Background(point(), PLANNER, goal(observe), BUDGET, seed=5, patience=0) as agent:
        place, actions = np.zeros(3, np.float32), []
        while len(actions) < 4:
            action = agent.act(observe(*place))
            if any("late" in words for words in agent.events()):
                continue  # a busy machine: it held, and the world is where it was
            actions.append(action)
            place = place + 0.25 * agent.model.action_space.to_unit(torch.from_numpy(action)).numpy()
    np.testing.assert_array_equal(np.stack(actions), core)
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="the agent was closed"):
        agent.act(observe())


def test_late_it_goes_on_for_a_while_then_holds_then_takes_up_what_is_left(point: Any, observe: Observe) -> None:
    worker, now = ByHand(), iter(range(100))
    agent = Background(
        point(), PLANNER, goal(observe), BUDGET, patience=2, worker=worker, clock=lambda: 0.1 * next(now)
    )
    agent.act(observe())
    worker.turn()
    first = agent.act(observe())  # the first plan; the second is begun now and will be late
    plan = agent.last_plan
    assert plan is not None
    steps = agent.model.action_space.to_physical(plan.actions[0]).numpy()
    np.testing.assert_array_equal(first, steps[0])
    for step in (1, 2):
        np.testing.assert_array_equal(agent.act(observe()), steps[step])
        (words,) = agent.events()
        assert words.startswith(f"the plan is {step} step")
        assert words.endswith(f"going on with the last one, step {step} of 2")
        assert agent.holds == {}
    for _ in range(2):
        np.testing.assert_array_equal(agent.act(observe()), np.zeros(3))
        assert "late" in agent.holds[0]
        assert agent.last_plan is None
    assert agent.late == 4
    worker.turn()
    # Two steps of the late plan lie behind, the steps it was held for do not.
    taken = agent.act(observe())
    assert agent.last_plan is not None
    assert agent.last_plan.actions.shape[1] == 6 - 2
    np.testing.assert_array_equal(taken, agent.model.action_space.to_physical(agent.last_plan.actions[0, 0]).numpy())
    assert agent.holds == {}


def test_who_held_meanwhile_begins_a_late_plan_at_its_first_step(point: Any, observe: Observe) -> None:
    spoilt = [True]
    brain = point(spoil=lambda actions: torch.full(actions.shape[:2], spoilt[0]))
    worker = ByHand()
    agent = Background(brain, PLANNER, goal(observe), BUDGET, patience=2, worker=worker, clock=lambda: 0.0)
    agent.act(observe())
    worker.turn()
    spoilt[0] = False
    for _ in range(3):  # the first plan is to hold; the second is late
        np.testing.assert_array_equal(agent.act(observe()), np.zeros(3))
        assert "going on" not in " ".join(agent.events())
    worker.turn()
    taken = agent.act(observe())
    assert agent.last_plan is not None
    assert agent.last_plan.actions.shape[1] == 6  # nothing of it is past: the arm stood still
    assert np.abs(taken).max() > 0


def test_a_search_that_fails_is_a_hold_with_a_reason_and_the_next_one_may_succeed(point: Any, observe: Observe) -> None:
    class Tired(CEM):
        calls = 0

        def plan(self, *args: Any, **words: Any) -> Plan:
            Tired.calls += 1
            if Tired.calls == 2:
                raise ZeroDivisionError("out of memory, say")
            return super().plan(*args, **words)

    worker = ByHand()
    agent = Background(point(), Tired(horizon=6), goal(observe), BUDGET, worker=worker)
    moved, said = [], []
    for _ in range(5):
        moved.append(bool(np.abs(agent.act(observe())).max() > 0))
        said.append(agent.events())
        worker.turn()
    assert moved == [False, True, False, True, True]
    assert said[2] == ("holding: the search failed: ZeroDivisionError: out of memory, say",)


def test_a_new_goal_drops_what_is_being_searched(point: Any, observe: Observe) -> None:
    worker = ByHand()
    agent = Background(point(), PLANNER, goal(observe, 0.6), BUDGET, worker=worker)
    agent.act(observe())
    agent.set_goal(goal(observe, -0.6))
    worker.turn()
    agent.act(observe())
    worker.turn()
    assert agent.act(observe())[0] < 0
    agent.reset()
    assert np.abs(agent.act(observe())).max() == 0

    started, gate = threading.Event(), threading.Event()

    def busy(futures: int) -> None:
        started.set()
        gate.wait(20)

    with Background(point(on_predict=busy), PLANNER, goal(observe, 0.6), BUDGET) as held:
        held.act(observe())
        assert started.wait(20)
        opener = threading.Timer(0.05, gate.set)
        opener.start()
        held.set_goal(goal(observe, -0.6))  # waits for the search, and forgets it
        assert gate.is_set()
        assert np.abs(held.act(observe())).max() == 0
        opener.join()
