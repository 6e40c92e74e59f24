"""The Rerun file holds what happened, step by step; pictures and films are whole files of the right size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
import rerun as rr
from PIL import Image

from planners import PlanRecord, Rollout, StepRecord
from planners.pictures import contact_sheet, film, side_by_side, write_mp4
from planners.recording import blueprint, write_rrd

HOME = np.array([0.0, -0.4, 0.0, -2.2, 0.0, 1.8, 0.8], np.float32)
POSE = np.array([0.45, 0.0, 0.02, 1, 0, 0, 0], np.float32)


def plan(rng: np.random.Generator, horizon: int = 3) -> PlanRecord:
    actions = rng.uniform(-0.05, 0.05, (horizon, 7)).astype(np.float32)
    return PlanRecord(
        actions=actions,
        elites=np.stack([actions, 0.5 * actions]),
        elite_costs=np.array([1.0, np.inf], np.float32),
        cost=1.0,
        terms={"learned": 0.7, "feature": 0.3},
        cost_per_iteration=np.array([2.0, 1.5, 1.0], np.float32),
        imagined=np.zeros((horizon, 4), np.float32),
        frames=rng.integers(0, 255, (horizon, 64, 64, 3), dtype=np.uint8),
        uncertainty=np.full(horizon, 0.4, np.float32),
        futures=385,
        discarded=0,
        plan_ms=40.0,
        stopped="all 385 futures imagined",
        held=False,
    )


def seen(rng: np.random.Generator, x: float) -> dict[str, np.ndarray]:
    return {
        "observation.images.front": rng.integers(0, 255, (64, 64, 3), dtype=np.uint8),
        "observation.images.wrist": rng.integers(0, 255, (64, 64, 3), dtype=np.uint8),
        "observation.state": np.array([x, 0, 0.1, np.pi, 0, 0, 0.5], np.float32),
        "observation.joints": HOME,
        "observation.environment_state": POSE,
    }


@pytest.fixture
def rollout() -> Rollout:
    """Four steps of an arm; in the third it held."""
    rng = np.random.default_rng(0)
    words = {
        "task": "push",
        "simulator": "mujoco",
        "model": "tabletop",
        "planner": "cem",
        "seed": 10_000,
        "rate_hz": 5.0,
    }
    made = Rollout(words, seen(rng, 0.6))
    for index in range(4):
        action = rng.uniform(-0.05, 0.05, 7).astype(np.float32)
        events = ("holding: the camera is dark",) if index == 2 else ()
        thought = None if index == 2 else plan(rng)
        judged = {"goal_distance_m": 0.2 - 0.04 * index}
        made.steps.append(StepRecord(0.2 * index, seen(rng, 0.4), action, action, 50.0, thought, judged, events))
    made.final = seen(rng, 0.6)
    made.outcome = {"success": True, "start_distance_cm": 20.0, "final_distance_cm": 1.3}
    return made


def logged(path: Path, entity: str) -> list[dict[str, Any]]:
    """The rows of an entity, in the order of their steps; what is static comes first."""
    rows = []
    for chunk in rr.experimental.RrdReader(str(path)).store().stream():
        if str(chunk.entity_path) == entity:
            rows += pa.record_batch(chunk.to_record_batch()).to_pylist()
    return sorted(rows, key=lambda row: row.get("step", -1))


def values(path: Path, entity: str, component: str) -> list[Any]:
    """What was logged of one component."""
    return [row[component] for row in logged(path, entity) if row.get(component) is not None]


def steps(path: Path, entity: str) -> list[int]:
    """When it was logged."""
    return [row["step"] for row in logged(path, entity) if "step" in row]


def test_everything_that_happened_is_in_the_file(rollout: Rollout, tmp_path: Path) -> None:
    path = write_rrd(rollout, tmp_path / "rollout.rrd")
    assert [file.name for file in tmp_path.iterdir()] == ["rollout.rrd"]
    assert steps(path, "/distance/goal") == [0, 1, 2, 3]
    np.testing.assert_allclose(np.ravel(values(path, "/distance/goal", "Scalars:scalars")), [20.0, 16.0, 12.0, 8.0])
    assert steps(path, "/cost/learned") == [0, 1, 3]
    assert [event[0] for event in values(path, "/events", "TextLog:text")] == [
        "episode 1 of 1: push, mujoco, tabletop, cem",
        "holding: the camera is dark",
        "end: success, 1.3 cm",
    ]
    planned = values(path, "/scene/planned", "LineStrips3D:strips")
    way = np.array(planned[0][0])
    told = rollout.steps[0].plan
    assert told is not None
    start = rollout.steps[0].observation["observation.state"][:3]
    np.testing.assert_allclose(way[0], start, atol=1e-6)
    np.testing.assert_allclose(way[-1], start + told.actions[:, :3].sum(0), atol=1e-6)
    assert planned[2] == []
    assert len(values(path, "/scene/elites", "LineStrips3D:strips")[0]) == 1  # the one that could be judged
    assert len(values(path, "/scene/executed", "LineStrips3D:strips")[-1][0]) == 5
    for entity in ("now", "wrist", "imagined_now", "imagined_end", "goal"):
        assert steps(path, f"/pictures/{entity}"), entity
    assert len(steps(path, "/arm/joints/panda_joint4")) == 5
    assert values(path, "/search/cost_per_iteration", "BarChart:values")


def test_the_layout_travels_with_the_file_and_the_file_is_sound(rollout: Rollout, tmp_path: Path) -> None:
    path = write_rrd([rollout, rollout], tmp_path / "two.rrd")
    assert len(rr.experimental.RrdReader(str(path)).blueprints()) == 1
    assert steps(path, "/distance/goal") == [0, 1, 2, 3, 5, 6, 7, 8]
    verified = subprocess.run(
        [sys.executable, "-m", "rerun", "rrd", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stderr


def test_a_landscape_has_a_picture_and_a_tab_of_its_own(rollout: Rollout, tmp_path: Path) -> None:
    drawn = np.full((120, 160, 3), 90, np.uint8)
    path = write_rrd(rollout, tmp_path / "with.rrd", landscape=drawn)
    assert len(logged(path, "/search/landscape")) == 1
    assert not logged(write_rrd(rollout, tmp_path / "without.rrd"), "/search/landscape")
    why = blueprint([rollout], landscape=True).root_container.contents[1]
    assert [tab.name for tab in why.contents] == ["why and how", "energy landscape around the first action"]  # type: ignore[union-attr]


def test_an_arm_without_truth_or_pictures_is_shown_too(tmp_path: Path) -> None:
    """A real arm knows no object's pose, and a brain may not paint."""
    rng = np.random.default_rng(0)
    bare = {key: value for key, value in seen(rng, 0.4).items() if key in ("observation.state", "observation.joints")}
    step = StepRecord(0.0, bare, np.zeros(7), np.full(7, np.nan), 1.0)
    path = write_rrd(Rollout({}, {}, [step]), tmp_path / "bare.rrd")
    assert values(path, "/scene/tool", "Points3D:positions")
    assert not values(path, "/scene/object", "Boxes3D:centers")


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rollout has a step"):
        write_rrd(Rollout({}, {}), tmp_path / "none.rrd")
    with pytest.raises(ValueError, match="at least one rollout"):
        contact_sheet([], tmp_path / "none.png")
    with pytest.raises(ValueError, match="at least one frame"):
        write_mp4([], tmp_path / "none.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_film_plays(rollout: Rollout, tmp_path: Path) -> None:
    frames = film(rollout, size=64)
    assert len(frames) == 5
    path = write_mp4(frames, tmp_path / "film.mp4", fps=5.0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(decoded) == 5
    assert decoded[0].shape == frames[0].shape
    assert np.abs(decoded[0].astype(int) - frames[0].astype(int)).mean() < 25
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]
    with pytest.raises(ValueError, match="one size"):
        write_mp4([frames[0], frames[0][:10]], tmp_path / "mixed.mp4")
    assert not (tmp_path / "mixed.mp4").exists()


def test_a_contact_sheet_has_a_row_for_each(rollout: Rollout, tmp_path: Path) -> None:
    one = Image.open(contact_sheet([rollout], tmp_path / "one.png", title="a title"))
    three = Image.open(contact_sheet([rollout] * 3, tmp_path / "three.png", title="a title"))
    assert one.width == three.width
    assert three.height - one.height == 2 * 210
    # The imagined end is the frame of the earliest plan that looked as far as the last moment.
    told = rollout.steps[1].plan
    assert told is not None
    assert told.frames is not None
    cell = np.asarray(one.crop((one.width - 210, one.height - 210, one.width - 10, one.height - 10)), float)
    expected = np.asarray(Image.fromarray(told.frames[2]).resize((200, 200), Image.Resampling.BICUBIC), float)
    assert np.abs(cell - expected).mean() < 1.0


def test_frames_side_by_side_have_even_sides() -> None:
    row = side_by_side([np.zeros((64, 64, 3), np.uint8), None], ["left", "right"], size=65)
    assert row.shape[0] % 2 == 0
    assert row.shape[1] % 2 == 0
    assert row[20, 20].max() < 10
    assert row[20, 100].min() > 200
