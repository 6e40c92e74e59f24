"""Any robot's LeRobotDataset can be adapted to: what its actions, pictures and rate are is read from it and said."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from PIL import Image

from tests.worldmodel.conftest import SMALL, picture_of
from tests.worldmodel.test_measures import config
from worldmodel import adapt, load
from worldmodel.corpus import action_space_of, examine_all, fit_to_data, open_all, sizes_for_video
from worldmodel.data import DatasetError, Episodes
from worldmodel.dataset_files import open_recording
from worldmodel.decoding import fit, picture_from_bytes
from worldmodel.interface import TABLETOP, ActionSpace
from worldmodel.networks import architecture_to_dict

MOTORS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
OPEN = {"cameras": [], "state_size": None, "action_size": None}
SIZES = architecture_to_dict(SMALL) | OPEN


def record_arm(
    root: Path, *, episodes: int = 6, length: int = 43, fps: int = 30, cameras=("up", "side"), names=None,
    constant: tuple[int, ...] = (), relation: str = "absolute", use_videos: bool = True, shape=(36, 48), seed: int = 0,
) -> Path:  # fmt: skip
    """An arm of six joints in degrees that follows targets (or does changes), written by LeRobot itself."""
    rng = np.random.default_rng(seed)
    names = [f"{motor}.pos" for motor in MOTORS] if names is None else names
    numbers = {"dtype": "float32", "shape": (6,), "names": names}
    picture = {
        "dtype": "video" if use_videos else "image", "shape": (*shape, 3), "names": ["height", "width", "channels"],
    }  # fmt: skip
    features = {f"observation.images.{camera}": picture for camera in cameras}
    features |= {"observation.state": numbers, "action": numbers}
    dataset = LeRobotDataset.create("local/arm", fps, features, root=root, robot_type="so101", use_videos=use_videos)
    for _ in range(episodes):
        place, goal = rng.uniform(-80, 80, 6), rng.uniform(-80, 80, 6)
        for t in range(length):
            goal = rng.uniform(-80, 80, 6) if t % 15 == 0 else goal
            change = np.clip(goal - place, -6, 6) * rng.uniform(0.3, 1.0, 6)
            action = place + change if relation == "absolute" else change
            action[list(constant)] = 12.5
            seen = picture_of((place[:2] + 100) / 200, min(shape))
            wide = np.full((*shape, 3), 110, np.uint8)
            left = (shape[1] - shape[0]) // 2
            wide[:, left : left + shape[0]] = seen
            frame = {f"observation.images.{camera}": wide for camera in cameras}
            dataset.add_frame(
                {
                    **frame,
                    "observation.state": place.astype(np.float32),
                    "action": action.astype(np.float32),
                    "task": "go",
                }
            )
            place = place + change
        dataset.save_episode()
    dataset.finalize()
    return root


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_arm(tmp_path_factory.mktemp("arm") / "so101")


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same arm, its pictures kept as PNGs in the table; one camera; actions are changes, named as a mapping."""
    names = {"motors": [f"delta_{motor}" for motor in MOTORS]}
    return record_arm(
        tmp_path_factory.mktemp("arm") / "stills", episodes=4, length=20, cameras=("up",), use_videos=False,
        relation="change", names=names,
    )  # fmt: skip


@pytest.fixture
def copy(stills: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stills, tmp_path / "copy", ignore=shutil.ignore_patterns(".decoded")))


def table_path(root: Path) -> Path:
    return next((root / "data").glob("chunk-*/*.parquet"))


def edit(root: Path, name: str, change) -> None:
    """Change a column's list of values."""
    table = pq.read_table(table_path(root))
    values = table[name].to_pylist()
    change(values)
    column = pa.array(values, table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), table_path(root))


def edit_info(root: Path, change) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    change(info)
    path.write_text(json.dumps(info))


def space_for(root: Path, stride: int = 1) -> ActionSpace:
    recordings = open_all([root])
    return action_space_of(recordings, examine_all(recordings), stride)[0]


# -- through the front door --------------------------------------------------------------------------------------------


def test_an_arm_of_another_kind_is_adapted_to(arm: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "brain"
    sizes = OPEN | {"cameras": ["up", "side"]}
    assert adapt.main(config("adapt", data=str(arm), out=str(out), stride=6, architecture=sizes)) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "What the actions mean" in said
    assert "Every 6th frame is taken, 5 Hz" in said
    model = load(out, "cpu")
    space = model.action_space
    assert space.names == tuple(f"{motor}.pos" for motor in MOTORS)
    assert space.rate_hz == 5.0
    recorded = open_recording(arm).vector("action")
    assert (np.array(space.low) < recorded.min(0)).all()
    assert (np.array(space.high) > recorded.max(0)).all()
    card = json.loads((out / "card.json").read_text())
    assert card["architecture"]["state_size"] == card["architecture"]["action_size"] == 6
    assert {each["relation"] for each in card["conventions"]["actions"]} == {"absolute"}
    assert card["conventions"]["actions"][0]["unit"] == "degrees (or percent)"
    seen = fit(np.zeros((480, 640, 3), np.uint8), 32)[None]
    observation = {f"observation.images.{camera}": seen for camera in ("up", "side")}
    latent = model.encode(observation | {"observation.state": recorded[:1]})
    future = model.predict(latent, space.to_unit(torch.tensor(recorded[:3]))[None, None])
    assert future.shape[:3] == (1, 1, 3)
    with pytest.raises(ValueError, match=r"was trained with \w+=.*, now it is"):
        adapt.main(config("adapt", data=str(arm), out=str(out), stride=3, architecture=sizes))
    # Going on keeps what the actions meant, even where fewer were seen.
    again = config("adapt", data=str(arm), out=str(tmp_path / "on"), stride=6, architecture=sizes, start=str(out))
    assert adapt.main(again) == 0
    assert load(tmp_path / "on", "cpu").action_space == space


def test_several_cameras_are_asked_about_and_one_is_taken(arm: Path, stills: Path) -> None:
    with pytest.raises(DatasetError, match=r"has up, side: say which to look through, architecture\.cameras=\[up\]"):
        fit_to_data(SIZES, [str(arm)])
    assert fit_to_data(SIZES, [str(stills)])[0].cameras == ("up",)
    assert sizes_for_video(SIZES, [str(stills)]).cameras == ("up",)
    with pytest.raises(DatasetError, match=r"has no observation\.images\.front; it has observation\.images\.up"):
        Episodes([stills], ("front",), space_for(stills))


def test_the_tabletop_s_own_data_keeps_its_space_and_sizes(tiny_dataset: Path, tmp_path: Path, capsys) -> None:
    root = Path(shutil.copytree(tiny_dataset, tmp_path / "copy", ignore=shutil.ignore_patterns(".decoded")))
    edit_info(root, lambda info: info["features"]["action"].update(names=list(TABLETOP.names)))
    architecture, space = fit_to_data(SIZES, [str(root)])
    assert space == TABLETOP
    assert architecture == SMALL
    assert fit_to_data(SIZES, [str(tiny_dataset)], action_space="tabletop")[1] == TABLETOP
    own = fit_to_data(SIZES, [str(tiny_dataset)])[1]
    assert own.names == tuple(f"a{number}" for number in range(7))
    capsys.readouterr()
    with pytest.raises(ValueError, match="action_space is 'tablet'; known are auto, tabletop"):
        fit_to_data(SIZES, [str(tiny_dataset)], action_space="tablet")
    for wrong, words in (({"state_size": 9}, "state_size is 9"), ({"action_size": 3}, "action_size is 3")):
        with pytest.raises(ValueError, match=words):
            fit_to_data(SIZES | wrong, [str(tiny_dataset)])


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_wide_pictures_are_cut_to_their_middle_and_shrunk(arm: Path) -> None:
    episodes = Episodes([arm], ("up", "side"), space_for(arm), image_size=32)
    assert episodes.pictures.shape[1:] == (2, 32, 32, 3)
    places = (episodes.states[:20, :2].numpy() + 100) / 200
    for seen, place in zip(episodes.pictures[np.arange(20)], places, strict=True):
        expected = fit(picture_of(place, 36), 32)
        assert np.abs(seen[0].astype(float) - expected).mean() < 12
    larger = Episodes([arm], ("side",), space_for(arm), image_size=48)
    assert larger.pictures.shape[1:] == (1, 48, 48, 3)
    assert larger.fingerprints != episodes.fingerprints


def test_pictures_in_the_table_are_read_exactly(stills: Path) -> None:
    episodes = Episodes([stills], ("up",), space_for(stills))
    places = (episodes.states[:, :2].numpy() + 100) / 200
    assert episodes.pictures.shape == (80, 1, 36, 36, 3)
    for row in (0, 1, 30, 79):
        assert np.array_equal(episodes.pictures[np.array([row])][0, 0], picture_of(places[row], 36))


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16", "RGB", "P"])
def test_grey_and_transparent_pictures_become_colours(mode: str) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(grey.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    written = io.BytesIO()
    image.save(written, "PNG")
    assert np.array_equal(picture_from_bytes(written.getvalue(), "here"), np.repeat(grey[..., None], 3, -1))


def test_a_damaged_or_lost_picture_is_named(copy: Path) -> None:
    def half(values: list) -> None:
        values[7] = {**values[7], "bytes": values[7]["bytes"][:60]}

    edit(copy, "observation.images.up", half)
    with pytest.raises(DatasetError, match=r"observation\.images\.up of frame 7 is truncated or no picture"):
        Episodes([copy], ("up",), space_for(copy))
    edit(copy, "observation.images.up", lambda values: values.__setitem__(7, None))
    with pytest.raises(DatasetError, match=r"observation\.images\.up of frame 7 is missing"):
        Episodes([copy], ("up",), space_for(copy))
    assert not list((copy / ".decoded").iterdir())


def test_a_camera_that_stands_still_is_said(copy: Path) -> None:
    def freeze(values: list) -> None:
        values[20:40] = values[20:21] * 20

    edit(copy, "observation.images.up", freeze)
    remarks = Episodes([copy], ("up",), space_for(copy)).remarks
    assert len(remarks) == 1
    assert "camera up shows one unchanging picture in 1 of 4" in remarks[0]
    assert "(1): was it frozen?" in remarks[0]


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_every_so_manieth_frame_with_the_changes_between_summed(stills: Path) -> None:
    whole = open_recording(stills).vector("action")
    space = space_for(stills, 6)
    assert space.rate_hz == 5.0
    episodes = Episodes([stills], ("up",), space, stride=6)
    assert {each.relation for each in episodes.conventions.dimensions} == {"change"}
    assert episodes.lengths.tolist() == [4] * 4
    summed = whole[:6].sum(0)
    assert np.allclose(space.to_physical(episodes.actions[0]).numpy(), summed, atol=1e-3)
    state = episodes.states
    assert np.allclose((state[1] - state[0]).numpy(), summed, atol=1e-3)  # the same change, one step long now
    with pytest.raises(DatasetError, match="recorded at 30 Hz; the action space is at 5 Hz; say stride=6"):
        Episodes([stills], ("up",), space)
    with pytest.raises(DatasetError, match="stride is 0"):
        Episodes([stills], ("up",), space, stride=0)


def test_targets_between_are_passed_over(arm: Path) -> None:
    whole = open_recording(arm).vector("action")
    space = space_for(arm, 6)
    episodes = Episodes([arm], ("up",), space, stride=6, image_size=32)
    assert episodes.lengths[0] == 8  # of 43 frames
    assert np.allclose(space.to_physical(episodes.actions[:2]).numpy(), whole[[5, 11]], atol=1e-3)


def test_actions_that_never_change(tmp_path: Path, capsys) -> None:
    one = record_arm(tmp_path / "one", episodes=2, length=15, cameras=("up",), use_videos=False, constant=(5,))
    space = fit_to_data(SIZES, [str(one)])[1]
    assert (space.low[5], space.high[5]) == (12.4875, 12.5125)
    assert "Action gripper.pos is always 12.5: it is kept, within 0.0125 of that." in capsys.readouterr().out
    assert Episodes([one], ("up",), space).actions[:, 5].abs().max() < 1e-3
    edit(one, "action", lambda values: values.__setitem__(slice(None), [[1.0] * 6] * len(values)))
    with pytest.raises(DatasetError, match="the actions never change"):
        fit_to_data(SIZES, [str(one)])


def test_a_glitch_is_said_with_its_place(arm: Path, tmp_path: Path, capsys) -> None:
    root = Path(shutil.copytree(arm, tmp_path / "arm"))
    edit(root, "action", lambda values: values[43 + 5].__setitem__(2, 1e6))
    fit_to_data(SIZES | {"cameras": ["up"]}, [str(root)])
    said = " ".join(capsys.readouterr().out.split())
    assert "Action elbow_flex.pos is 1e+06 in frame 5 of episode 1" in said


def test_datasets_must_agree(arm: Path, stills: Path, copy: Path) -> None:
    with pytest.raises(DatasetError, match=r"an action is \(shoulder_pan\.pos, .*\) in .* and \(delta_shoulder_pan"):
        open_all([arm, stills])
    edit(copy, "timestamp", lambda values: values.__setitem__(slice(None), [2 * value for value in values]))
    edit_info(copy, lambda info: info.update(fps=15))
    with pytest.raises(DatasetError, match=r"was recorded at 30 Hz, .* at 15 Hz; .* must have one rate"):
        open_all([stills, copy])


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [
        (
            "timestamp",
            lambda v: v.__setitem__(27, v[27] + 0.02),
            "gap in episode 1: frame 7 comes 0.05333 s after the one",
        ),
        ("timestamp", lambda v: v.__setitem__(27, v[26]), "gap in episode 1: frame 7 comes 0 s after"),
        (
            "frame_index",
            lambda v: v.__setitem__(slice(27, 40), [i + 1 for i in v[27:40]]),
            "gap in episode 1: frame 7 is",
        ),
        ("index", lambda v: v.__setitem__(27, 26), "row 27 calls itself 26"),
        ("episode_index", lambda v: v.__setitem__(slice(20, 40), [0] * 20), "gap: episode 1 has no frames"),
        ("episode_index", lambda v: v.__setitem__(3, 1), "gap: its episodes are mixed"),
        (
            "action",
            lambda v: v[27].__setitem__(3, float("nan")),
            "action has NaN or infinity in dimension 3 of episode 1",
        ),
        ("observation.state", lambda v: v[3].__setitem__(0, float("inf")), "state has NaN or infinity in dimension 0"),
    ],
)
def test_gaps_and_numbers_that_are_none_are_named(copy: Path, column: str, change, words: str) -> None:
    edit(copy, column, change)
    with pytest.raises(DatasetError, match=words):
        open_all([copy])


def test_episodes_of_one_frame_are_left_out_and_counted(tmp_path: Path) -> None:
    root = record_arm(tmp_path / "arm", episodes=3, length=12, cameras=("up",), use_videos=False)
    table = pq.read_table(table_path(root))
    kept = pa.concat_tables([table.slice(0, 13), table.slice(24)])  # one frame of the second episode
    kept = kept.set_column(kept.column_names.index("index"), "index", pa.array(range(25), pa.int64()))
    pq.write_table(kept, table_path(root))
    edit_info(root, lambda info: info.update(total_frames=25))
    episodes = Episodes([root], ("up",), space_for(root))
    assert episodes.lengths.tolist() == [12, 12]
    assert episodes.starts.tolist() == [0, 12]
    assert episodes.remarks == ["1 episode(s) of one frame were left out: nothing happens in them"]
    place = (episodes.states[12, :2].numpy() + 100) / 200
    assert np.array_equal(episodes.pictures[np.array([12])][0, 0], picture_of(place, 36))
    with pytest.raises(DatasetError, match="every episode has only one frame"):
        Episodes([root], ("up",), space_for(root, 12), stride=12)


def test_an_action_of_one_number_and_names_as_places_are_read(copy: Path) -> None:
    table = pq.read_table(table_path(copy))
    first = pa.array([row[0] for row in table["action"].to_pylist()], pa.float32())
    pq.write_table(table.set_column(table.column_names.index("action"), "action", first), table_path(copy))
    edit_info(copy, lambda info: info["features"]["action"].update(shape=[1], names={"push": 0}))
    architecture, space = fit_to_data(SIZES, [str(copy)])
    assert architecture.action_size == 1
    assert space.names == ("push",)
    assert Episodes([copy], ("up",), space).actions.shape == (80, 1)


def test_names_that_say_something_else_are_contradicted(arm: Path, tmp_path: Path, capsys) -> None:
    root = Path(shutil.copytree(arm, tmp_path / "arm", ignore=shutil.ignore_patterns(".decoded")))
    edit_info(root, lambda info: info["features"]["action"].update(names=[f"delta_{motor}" for motor in MOTORS]))
    edit_info(root, lambda info: info["features"]["action"].update(info={"frame": "base"}))
    fit_to_data(SIZES | {"cameras": ["up"]}, [str(root)])
    said = " ".join(capsys.readouterr().out.split())
    assert "The names say that delta_shoulder_pan" in said
    assert "the data say absolute targets of" in said
    assert "frame: base" in said
