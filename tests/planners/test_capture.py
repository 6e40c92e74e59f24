"""A search run as one thing: the same plans, and nothing that an accelerator would have to be waited for."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from planners import CEM, CMAES, ICEM, MPPI, Budget, Gradient, Hybrid, Plan, RandomShooting, Schedules, make_planner
from planners import capture as capture_module
from planners.belief import Belief
from planners.benchmark.latent_world import LatentWorld
from planners.benchmark.whole import products
from planners.books import Books, Judge
from planners.capture import Captures, capture, lay_flat, put_together, trace
from planners.curves import make_curve
from planners.objectives import (
    ActionPenalty,
    FeatureDistance,
    LearnedDistance,
    Objective,
    SmoothnessPenalty,
    StateDistance,
    UncertaintyPenalty,
)
from planners.planner import SamplingPlanner
from planners.turns import Drawn, Ground, turn
from worldmodel import load
from worldmodel.interface import ActionSpace
from worldmodel.native import NativeModel
from worldmodel.networks import Architecture, Networks
from worldmodel.turned import Turned
from worldmodel.vjepa2 import ActionPredictor, Encoder, Size
from worldmodel.vjepa2_model import VJepa2Model

SAMPLING: list[type[SamplingPlanner]] = [CEM, ICEM, MPPI, CMAES, RandomShooting]
BUDGET = Budget(40, 3)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`compile` without the compiler, which takes minutes: the traced operations, one after the other.

    What capturing asks of a search is the same: that it can be traced, and that nothing of an earlier plan is left in it.
    """
    monkeypatch.setattr(capture_module, "_compiled", lambda traced, flat: traced)


@pytest.fixture(scope="module")
def world() -> LatentWorld:
    return LatentWorld()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(one: Plan, other: Plan) -> bool:
    pairs = [(one.actions, other.actions), (one.elites, other.elites), (one.imagined, other.imagined)]
    pairs += [(one.cost_per_iteration, other.cost_per_iteration), (one.elite_costs, other.elite_costs)]
    pairs += [(value, other.terms[name]) for name, value in one.terms.items()]
    said = (one.futures, one.stopped, one.discarded) == (other.futures, other.stopped, other.discarded)
    return said and all(torch.equal(a, b) for a, b in pairs)


# -- the same plans ----------------------------------------------------------------------------------------------------


WORDS: list[dict[str, Any]] = [{"knots": 3, "spline": "cubic"}, {"repeat": 2}, {"memory_mb": 0.1}, {"trusted": 1.0}]


@pytest.mark.usefixtures("replayed")
@pytest.mark.parametrize(
    ("kind", "words"), [*((kind, {}) for kind in [*SAMPLING, Hybrid, Gradient]), *((CEM, words) for words in WORDS)]
)
def test_what_is_captured_finds_the_same_plans(
    kind: type[SamplingPlanner], words: dict[str, Any], world: LatentWorld
) -> None:
    plain = kind(horizon=3, initial_std=0.8, elites=8, **words)
    whole = replace(plain, capture="compile")
    warm = torch.full((2, 2, 7), 0.1)
    first = []
    # Other starts, goals, noise and warm starts than it was captured with: whatever was left of those would show.
    for seed in (1, 2):
        start, goal = world.problems(2, seed, horizon=3)
        for beginning in (None, warm * seed):
            plans = [
                planner.plan(world, start, goal, BUDGET, warm_start=beginning, generator=generator(seed))
                for planner in (plain, whole)
            ]
            assert same(*plans)
            assert [plan.captured for plan in plans] == [False, True]
            first.append(plans[1].warm_up_ms)
    assert min(first[:2]) > 0  # a warm start is one future more: another shape
    assert first[2:] == [0.0] * 2


@pytest.mark.usefixtures("replayed")
@given(st.data())
@settings(max_examples=6, deadline=None)
def test_any_settings_are_captured_faithfully(data: st.DataObject) -> None:
    world = LatentWorld()
    horizon = data.draw(st.integers(1, 3))
    terms = {
        "learned": LearnedDistance(),
        "feature": FeatureDistance(measure=data.draw(st.sampled_from(["squared", "l2", "l1", "cosine"]))),
        "action": data.draw(st.sampled_from([None, ActionPenalty()])),
        "smooth": data.draw(st.sampled_from([None, SmoothnessPenalty()])),
        "doubt": data.draw(st.sampled_from([None, UncertaintyPenalty()])),
    }
    plain = data.draw(st.sampled_from(SAMPLING))(
        horizon=horizon,
        objective=Objective(**terms),
        elites=data.draw(st.integers(1, 9)),
        initial_std=data.draw(st.sampled_from([0.3, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)])),
        min_std=data.draw(st.sampled_from([0.0, 0.2])),
    )
    budget = Budget(data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3)))
    start, goal = world.problems(data.draw(st.integers(1, 3)), 5, horizon=horizon)
    whole = replace(plain, capture="compile")
    assert same(*(one.plan(world, start, goal, budget, generator=generator(7)) for one in (plain, whole)))


@pytest.mark.usefixtures("replayed")
def test_the_shipped_brain_is_captured_with_its_prior() -> None:
    model = load("tabletop")
    latent = torch.randn(2, 6, generator=generator(1))
    start, goal = (torch.zeros(2, sum(part.shape[-1] for part in model_parts(model))) for _ in range(2))
    start[:, :6], goal[:, :6] = latent, latent.flip(0)
    chosen: tuple[dict[str, Any], ...] = ({}, {"within_prior": 1.0})
    for words in chosen:
        plain = CEM(horizon=2, elites=8, **words)
        whole = replace(plain, capture="compile")
        for seed in (1, 2):
            plans = [one.plan(model, start, goal, Budget(16, 1), generator=generator(seed)) for one in (plain, whole)]
            assert plans[1].captured
            assert same(*plans)


@pytest.mark.usefixtures("replayed")
def test_unsound_futures_are_discarded_by_what_was_captured_too(world: LatentWorld) -> None:
    class Mad(LatentWorld):
        """Whoever moves far in the first number goes mad; after `fell`, everyone."""

        def __init__(self) -> None:
            super().__init__()
            self.fell = torch.zeros(())

        def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
            future = super().predict(latent, actions)
            mad = (actions[..., :1] > 0.5) | (self.fell > 0)
            return torch.where(mad, torch.nan, future)

    model = Mad()
    whole = CEM(horizon=4, capture="compile")
    start, goal = world.problems(1, 3, horizon=4)
    plan = whole.plan(model, start, goal, BUDGET)
    assert plan.captured
    assert plan.discarded > 0
    assert same(plan, CEM(horizon=4).plan(model, start, goal, BUDGET))
    model.fell.fill_(1.0)  # what is changed in place is heard
    plan = whole.plan(model, start, goal, BUDGET)
    assert plan.held.all()
    assert plan.warm_up_ms == 0
    assert "no future was finite" in plan.stopped


@pytest.mark.usefixtures("replayed")
def test_with_a_deadline_the_warm_up_does_not_count(world: LatentWorld) -> None:
    start, goal = world.problems(1, 3, horizon=4)
    whole = CEM(horizon=4, capture="compile")
    budget = Budget(20, 2, deadline_ms=10_000.0)
    first = whole.plan(world, start, goal, budget)
    assert first.warm_up_ms > 0
    assert first.plan_ms < 10_000
    assert not first.out_of_time
    tight = replace(budget, iterations=400, deadline_ms=120.0)
    whole.plan(world, start, goal, tight)
    late = whole.plan(world, start, goal, tight)
    assert late.out_of_time
    assert not late.held.any()
    assert 0 < late.futures < tight.futures


def test_the_oldest_captures_are_forgotten() -> None:
    kept = Captures(most=2)
    shapes = [torch.zeros(n) for n in (1, 2, 3)]
    took = [kept.call("none", "double", lambda x: x * 2, (one,))[1] for one in shapes]
    assert len(kept) == 2
    assert min(took) > 0
    assert kept.call("none", "double", lambda x: x * 3, (shapes[2],))[1] == 0.0
    assert kept.call("none", "double", lambda x: x * 2, (shapes[0],))[1] > 0.0


@pytest.mark.usefixtures("replayed")
def test_a_brain_that_is_gone_passes_its_place_to_no_other() -> None:
    brain, whole = LatentWorld(), CEM(horizon=1, capture="compile")
    start, goal = brain.problems(1, 1, horizon=1)
    whole.plan(brain, start, goal, Budget(2, 1))
    known = weakref.ref(brain)
    del brain
    gc.collect()
    # What was captured goes by where a brain lies: it must not be let go while that is remembered.
    assert known() is not None


@pytest.mark.usefixtures("replayed")
def test_all_turns_of_a_name_are_laid_out_alike(monkeypatch: pytest.MonkeyPatch, world: LatentWorld) -> None:
    # A compiler would fuse anew for every layout, within a plan that is told to be in time.
    layouts: dict[Any, set[Any]] = {}

    def watched(traced: Callable[..., Any], flat: list[Tensor]) -> Callable[..., Any]:
        def run(*given: Tensor) -> Any:
            layouts.setdefault(id(traced), set()).add(tuple(one.stride() for one in given))
            return traced(*given)

        return run

    monkeypatch.setattr(capture_module, "_compiled", watched)
    start, goal = world.problems(1, 3, horizon=2)
    CEM(horizon=2, capture="compile").plan(world, start, goal.expand(1, -1), Budget(6, 4))
    assert len(layouts) == 2  # all turns but the last, and the last
    assert all(len(seen) == 1 for seen in layouts.values())


@pytest.mark.usefixtures("replayed")
def test_a_search_of_many_shapes_remembers_them_all(world: LatentWorld) -> None:
    start, goal = world.problems(1, 3, horizon=1)
    whole = ICEM(horizon=1, capture="compile")
    budget = Budget(60, 18)  # every population is smaller than the one before
    assert len(set(whole.populations(budget))) > 16
    first, second = (whole.plan(world, start, goal, budget) for _ in range(2))
    assert first.warm_up_ms > 0
    assert second.warm_up_ms == 0


@pytest.mark.usefixtures("replayed")
def test_slopes_begin_only_where_they_end_in_time(world: LatentWorld) -> None:
    """The clock stands still but for what is captured: 1 ms a future."""
    now = [0.0]

    def tick(traced: Callable[..., Any], flat: list[Tensor]) -> Callable[..., Any]:
        futures = flat[-1].shape[1] if flat[-1].ndim == 4 else 40  # of slopes, or of the one population

        def run(*given: Tensor) -> Any:
            now[0] += 0.001 * futures * (3 if flat[-1].ndim == 4 else 1)
            return traced(*given)

        return run

    start, goal = world.problems(1, 3, horizon=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capture_module, "_compiled", tick)
        whole = Hybrid(horizon=1, capture="compile", explore=0.4, elites=20, clock=lambda: now[0])
        for deadline_ms in (44.0, 60.0):
            plan = whole.plan(world, start, goal, Budget(100, 1, deadline_ms=deadline_ms))
            assert plan.plan_ms <= deadline_ms
            assert plan.warm_up_ms == 0.0  # by the planner's own clock, which stands still meanwhile
    assert plan.futures > 40


class Tape(TorchDispatchMode):
    """What a CUDA graph is to `_Recorded`, on this machine: operations on fixed places in memory, done again at will."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        self.lines.append((func, args, kwargs or {}, [one for one in pytree.tree_leaves(answer) if one is not None]))
        return answer

    def replay(self) -> None:
        for func, args, kwargs, places in self.lines:
            again = [one for one in pytree.tree_leaves(func(*args, **kwargs)) if one is not None]
            for place, value in zip(places, again, strict=True):
                if place.data_ptr() != value.data_ptr():  # a view is where it was
                    place.copy_(value)


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that records CUDA graphs of its processor's operations."""
    cuda = torch.cuda
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(cuda, "stream", lambda chosen: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "graph", lambda tape, stream: tape)


@pytest.mark.usefixtures("taped")
def test_a_recording_is_done_again_on_what_it_is_given() -> None:
    def step(tree: dict[str, Tensor], other: Tensor) -> dict[str, Tensor]:
        fixed = other.new_tensor([1.0, 2.0, 3.0])
        return {"sum": tree["a"] * fixed + other, "same": other, "best": (tree["a"] + other).max(0).values}

    first = ({"a": torch.rand(3)}, torch.rand(3))
    traced, shape = trace(step, first)
    read = weakref.ref(traced)
    run = capture_module._Recorded(traced, lay_flat(first)[0])
    del traced
    gc.collect()
    assert read() is not None  # the numbers it was traced with lie there
    kept = []
    for seed in range(3):
        given = ({"a": torch.rand(3, generator=generator(seed))}, torch.rand(3, generator=generator(seed + 9)))
        kept.append((put_together(run(*lay_flat(given)[0]), shape), step(*given)))
    for answer, expected in kept:  # the first is not written over by the last
        for name, value in expected.items():
            assert torch.equal(answer[name], value)


@given(st.recursive(st.none() | st.integers(0, 3), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from("abc"), inner, max_size=3), max_leaves=8))  # fmt: skip
def test_trees_are_laid_flat_and_put_together(tree: Any) -> None:
    tree = pytree.tree_map(lambda leaf: None if leaf is None else torch.full((leaf,), 1.0), tree)
    tensors, shape = lay_flat(tree)
    assert all(isinstance(one, Tensor) for one in tensors)
    again = put_together(tensors, shape)
    assert pytree.tree_structure(again) == pytree.tree_structure(tree)
    assert lay_flat(again)[1] == shape


# -- nothing to wait for -----------------------------------------------------------------------------------------------


class Crossings(TorchDispatchMode):
    """Operations that carry more than one number from one device to another: CUDA cannot record those."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        devices = [
            {one.device.type for one in pytree.tree_leaves(tree) if isinstance(one, Tensor) and one.ndim > 0}
            for tree in ((args, kwargs), answer)
        ]
        if len(devices[0] | devices[1]) > 1:
            self.found.append(str(func))
        return answer


@pytest.fixture
def accelerator() -> Iterator[torch.device]:
    """A CUDA device whose tensors hold nothing: who looks into one, or waits for it, is found out on any machine."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("cuda")


def a_native(device: torch.device) -> tuple[NativeModel, Tensor]:
    architecture = Architecture(features=8, state_size=3, action_size=7, image_size=32)
    with device:
        networks = Networks(architecture)
    there: Any = networks
    there.to = lambda *_: networks  # it is there; what holds nothing cannot be moved
    model = NativeModel(networks, ActionSpace.tabletop(), device=device)
    return model, torch.randn(2, 8 + 3 + 1, device=device)


def a_latent(device: torch.device) -> tuple[LatentWorld, Tensor]:
    return LatentWorld(device=device), torch.randn(2, 256, device=device)


def a_turned(device: torch.device) -> tuple[Turned, Tensor]:
    model, latent = a_native(device)
    return Turned(model, 0.3), latent


def a_vjepa(device: torch.device) -> tuple[VJepa2Model, Tensor]:
    sizes: dict[str, Any] = {
        "img_size": (32, 32),
        "patch_size": 16,
        "num_frames": 8,
        "tubelet_size": 2,
        "embed_dim": 24,
    }
    sizes |= {"depth": 1, "num_heads": 2}
    with device:
        encoder, predictor = (
            Encoder(Size(**sizes), hidden=48),
            ActionPredictor(Size(**sizes, predictor_embed_dim=32), hidden=64),
        )
    for network in (encoder, predictor):
        there: Any = network
        there.to = lambda *_, network=network: network
    return VJepa2Model(encoder, predictor, device=device, precision="float32"), torch.randn(2, 5, 24, device=device)


@pytest.mark.parametrize("brain", [a_native, a_turned, a_latent, a_vjepa])
@pytest.mark.parametrize("kind", SAMPLING, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("words", [{}, {"knots": 3}, {"repeat": 2}], ids=str)
def test_a_turn_never_waits_for_an_accelerator(
    brain: Callable[[torch.device], tuple[Any, Tensor]],
    kind: type[SamplingPlanner],
    words: dict[str, Any],
    accelerator: torch.device,
) -> None:
    planner = kind(horizon=4, elites=6, **words)
    model, latent = brain(accelerator)
    goal = torch.randn_like(latent)
    # Not from the cache of curves: what holds nothing must not stay there for others.
    curve = make_curve.__wrapped__(4, planner.repeat, planner.knots, planner.spline).on(accelerator)
    rest = torch.zeros(2, 4, 7, device=accelerator)
    points = curve.at_points(rest)
    objective = Objective(
        learned=LearnedDistance(), feature=FeatureDistance(), state=StateDistance(), action=ActionPenalty(),
        smooth=SmoothnessPenalty(), doubt=UncertaintyPenalty(),
    )  # fmt: skip
    judge = Judge(model, objective, curve, trusted=2.0)
    books = Books.empty(latent, rest, points, 6, objective.names)
    belief = Belief(points, torch.ones_like(points))
    ground = Ground(-torch.ones_like(points), torch.ones_like(points), torch.full((7,), 0.05, device=accelerator))
    noise = torch.randn(1, 9, points.shape[1], 7, device=accelerator)
    proposed = torch.randn(2, 3, 2, 7, device=accelerator)
    with Crossings() as crossings, torch.no_grad():
        turned = turn(
            planner, judge, 4, True, belief, books, Drawn(noise, proposed, None), [points[:, None]], ground,
            latent, goal,
        )  # fmt: skip
    assert crossings.found == []
    for one in pytree.tree_leaves(turned):
        assert one.device.type == "cuda"


def test_the_accelerator_of_these_tests_finds_out_who_waits(accelerator: torch.device) -> None:
    values = torch.randn(3, device=accelerator)
    with pytest.raises(Exception, match="local_scalar_dense"):
        float(values.sum())
    with Crossings() as crossings:
        values.new_tensor([1.0, 2.0])
        values.cpu()
    assert len(crossings.found) == 2


# -- what cannot be captured -------------------------------------------------------------------------------------------


def test_who_looks_at_values_is_refused_in_one_sentence(world: LatentWorld) -> None:
    class Looking(LatentWorld):
        def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
            return super().predict(latent, actions) * (2.0 if float(actions.sum()) > 0 else 1.0)

    class Leaving(LatentWorld):
        def predict(self, latent: Tensor, actions: Tensor) -> Tensor:
            return torch.from_numpy(super().predict(latent, actions).numpy())

    start, goal = world.problems(1, 3)
    for model in (Looking(), Leaving()):
        with pytest.raises(ValueError, match=r"cannot be captured, because .* looks at values .* capture=none"):
            CEM(capture="compile").plan(model, start, goal, BUDGET)


def test_words_and_devices_that_do_not_go_together_are_refused(world: LatentWorld) -> None:
    with pytest.raises(ValueError, match="capture is 'grahp'; it is none, compile, graph or both"):
        CEM(capture="grahp")
    with pytest.raises(ValueError, match="schedules are searched as branches"):
        CEM(capture="compile", schedules=Schedules())
    with pytest.raises(ValueError, match="no setting '_captures'"):
        make_planner({"name": "cem", "_captures": None})
    start, goal = world.problems(1, 3)
    with pytest.raises(ValueError, match="records a CUDA graph, and this is on cpu; say capture=compile or none"):
        CEM(capture="graph").plan(world, start, goal, BUDGET)
    with pytest.raises(TypeError, match="only trees of tensors can be captured; here is a float"):
        capture("compile", lambda x: x, (1.0,))


def test_a_goal_of_numbers_is_searched_operation_by_operation() -> None:
    from planners import Region, Target, Targets

    model = load("tabletop")
    latent = torch.zeros(1, sum(part.shape[-1] for part in model_parts(model)))
    goal = Targets((Target(latent[:0], region=Region((0.4,), (0.5,))),))
    plan = CEM(horizon=2, capture="compile").plan(model, latent, goal, Budget(8, 1))
    assert not plan.captured
    assert plan.warm_up_ms == 0.0


# -- the compiler and the arithmetic -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_compiled_finds_nearly_the_same_plans(world: LatentWorld) -> None:
    start, goal = world.problems(2, 3, horizon=2)
    plain = MPPI(horizon=2, elites=8)
    whole = replace(plain, capture="compile")
    plans = [one.plan(world, start, goal, BUDGET, generator=generator(1)) for one in (plain, whole)]
    assert plans[1].warm_up_ms > 0
    torch.testing.assert_close(plans[0].cost, plans[1].cost, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plans[0].actions, plans[1].actions, rtol=1e-2, atol=1e-2)
    again = whole.plan(world, start, goal, BUDGET, generator=generator(2))
    assert again.warm_up_ms == 0.0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("kind", [CEM, ICEM, Gradient], ids=lambda kind: kind.__name__)
def test_a_cuda_graph_finds_the_same_plans(kind: type[SamplingPlanner]) -> None:
    device = torch.device("cuda")
    world = LatentWorld(device=device)
    plain = kind(horizon=4)
    whole = replace(plain, capture="graph")
    for seed in (1, 2, 3):
        start, goal = world.problems(2, seed, horizon=4)
        noise = [torch.Generator(device).manual_seed(seed) for _ in range(2)]
        plans = [one.plan(world, start, goal, BUDGET, generator=noise.pop()) for one in (plain, whole)]
        torch.testing.assert_close(plans[0].actions, plans[1].actions, rtol=1e-3, atol=1e-3)


def test_products_are_counted_by_the_type_of_their_numbers(world: LatentWorld) -> None:
    start, goal = world.problems(1, 3, horizon=4)
    future = 2 * ((256 + 7) * 512 + 512 * 512 + 512 * 256) * 4
    planner = CEM(horizon=4)
    counted = products(lambda: planner.plan(world, start, goal, Budget(10, 2)))
    assert counted == {torch.float32: future * 21}  # the belief's own middle, in the end
    assert counted == products(lambda: CEM(horizon=4).plan(world, start, goal, Budget(10, 2)))
    question, pictures = torch.zeros(2, 4, 6, 8), torch.zeros(2, 3, 8, 8)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            attention = products(lambda: F.scaled_dot_product_attention(question, question, question))
            assert attention == {torch.float32: 2 * 2 * (2 * 4) * 6 * 6 * 8}
            seen = products(lambda: F.conv2d(pictures, torch.zeros(5, 3, 3, 3)))
            assert seen == {torch.float32: 2 * 2 * 5 * 6 * 6 * 27}
            summed = products(lambda: torch.einsum("bij,bjk->bik", torch.zeros(2, 3, 4), torch.zeros(2, 4, 5)))
            assert summed == {torch.float32: 2 * 2 * 3 * 4 * 5}
    layer = torch.nn.Linear(3, 5).bfloat16()
    with torch.inference_mode():
        assert products(lambda: layer(torch.zeros(2, 3, dtype=torch.bfloat16))) == {torch.bfloat16: 60}


def test_tracing_runs_what_it_was_given_on_tensors_that_hold_nothing() -> None:
    seen = []

    def double(tree: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(type(tree["x"]).__name__)
        return {"y": tree["x"] * 2}

    run, shape = trace(double, ({"x": torch.ones(3)},))
    assert seen != ["Tensor"]
    assert torch.equal(put_together(run(torch.arange(3.0)), shape)["y"], torch.tensor([0.0, 2.0, 4.0]))


def model_parts(model: Any) -> tuple[Tensor, ...]:
    """What a latent of the native brain is made of, in its order: features, state, doubt."""
    architecture = model.architecture
    return torch.zeros(architecture.features), torch.zeros(architecture.state_size), torch.zeros(1)
