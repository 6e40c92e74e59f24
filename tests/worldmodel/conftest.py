"""A tiny world to learn: a bright square that actions move over a grey field, recorded as a LeRobotDataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from worldmodel.interface import TABLETOP
from worldmodel.native import NativeModel
from worldmodel.networks import Architecture, Networks

SMALL = Architecture(
    image_size=32, features=24, keypoints=8, predictor_width=48, predictor_depth=2, head_width=48, proposal_steps=3,
    goal_state=True,
)  # fmt: skip


def picture_of(place: np.ndarray, size: int = 32) -> np.ndarray:
    """A red square of 6 px at a place (2,) in [0, 1] on grey."""
    picture = np.full((size, size, 3), 110, np.uint8)
    x, y = (4 + place * (size - 14)).astype(int)
    picture[y : y + 6, x : x + 6] = (220, 40, 40)
    return picture


def record(root: Path, episodes: int = 8, length: int = 14, *, action_size: int = 7, camera: str = "front") -> Path:
    """Write the dataset with LeRobot's own writer."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset  # seconds that a test's own processes need not spend

    rng = np.random.default_rng(0)
    features = {
        f"observation.images.{camera}": {
            "dtype": "video", "shape": (32, 32, 3), "names": ["height", "width", "channels"],
        },
        "observation.state": {"dtype": "float32", "shape": (7,), "names": [f"s{i}" for i in range(7)]},
        "observation.environment_state": {"dtype": "float32", "shape": (7,), "names": [f"e{i}" for i in range(7)]},
        "action": {"dtype": "float32", "shape": (action_size,), "names": [f"a{i}" for i in range(action_size)]},
    }  # fmt: skip
    dataset = LeRobotDataset.create("local/tiny", 5, features, root=root, use_videos=True)
    high = np.resize(np.array(TABLETOP.high, np.float32), action_size)
    for _ in range(episodes):
        place = rng.uniform(0, 1, 2)
        for _ in range(length):
            action = (rng.uniform(-1, 1, action_size) * high).astype(np.float32)
            state = np.concatenate([place, np.zeros(5)]).astype(np.float32)
            dataset.add_frame(
                {
                    f"observation.images.{camera}": picture_of(place),
                    "observation.state": state,
                    "observation.environment_state": state,
                    "action": action,
                    "task": "play",
                }
            )
            place = np.clip(place + 4 * action[:2], 0, 1)
        dataset.save_episode()
    dataset.finalize()
    return root


def without_times(rows: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    """A history's figures that a machine's speed does not change."""
    return [{name: value for name, value in row.items() if name not in ("minutes", "loader_share")} for row in rows]


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def model() -> NativeModel:
    torch.manual_seed(0)
    return NativeModel(Networks(SMALL), TABLETOP)


@pytest.fixture
def observation() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "observation.images.front": rng.integers(0, 255, (2, 32, 32, 3), dtype=np.uint8),
        "observation.state": rng.normal(size=(2, 7)).astype(np.float32),
    }
