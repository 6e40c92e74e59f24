"""Any folder of videos is a corpus for pretraining, through the command's own door."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from tests.worldmodel.conftest import picture_of
from tests.worldmodel.test_measures import config
from worldmodel import adapt, load, pretrain
from worldmodel.data import DatasetError, Episodes
from worldmodel.interface import TABLETOP


def film(
    path: Path, frames: int = 90, *, fps: int = 30, size: tuple[int, int] = (40, 64), skip: range = range(0)
) -> Path:
    """A video (H, W) in which a square moves across the middle; the frames of `skip` are left out, time goes on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264" if path.suffix != ".webm" else "libvpx-vp9", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            if number in skip:
                continue
            picture = np.full((height, width, 3), 110, np.uint8)
            side = min(size)
            left, top = (width - side) // 2, (height - side) // 2
            picture[top : top + side, left : left + side] = picture_of(np.array([number / frames, 0.5]), side)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def watched(root: Path, **options) -> Episodes:
    settings = {"image_size": 32, "rate_hz": 5.0} | options
    return Episodes([root], ("video",), TABLETOP, video_only=True, **settings)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    film(root / "a.mp4")
    film(root / "deeper/b.mkv", 60, fps=15)
    film(root / "deeper/c.mp4", 75, size=(64, 48))
    film(root / "d.mov", 90)
    return root


@pytest.fixture
def folder(films: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(films, tmp_path / "films"))


def test_videos_of_any_rate_and_shape_become_episodes_at_one_rate(folder: Path) -> None:
    (folder / "notes.txt").write_text("not a video")
    episodes = watched(folder)
    assert episodes.lengths.tolist() == [15, 15, 20, 13]  # a, d, deeper/b, deeper/c: seconds times 5
    assert episodes.scenes.tolist() == [0, 1, 2, 3]
    assert episodes.pictures.shape == (63, 1, 32, 32, 3)
    assert episodes.remarks == []
    # Sixth frame of a 30 Hz video: the square a fifth of a second on.
    places = [(episodes.pictures[np.array([t])][0, 0, :, :, 0] > 160).nonzero()[1].mean() for t in (0, 5, 10)]
    assert np.allclose(np.diff(places), 5 * 6 / 90 * (40 - 14) * 32 / 40, atol=1.0)


def test_long_videos_are_cut_and_gaps_end_an_episode(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", 150)
    film(tmp_path / "b.mp4", 150, skip=range(50, 90))
    episodes = watched(tmp_path, episode_frames=10)
    assert episodes.lengths.tolist() == [10, 10, 5, 9, 10]  # b: 10 pieces of what lies after its gap
    assert episodes.scenes.tolist() == [0, 0, 0, 1, 1]


def test_damaged_videos_are_left_out_and_said_and_the_cache_is_used_again(folder: Path) -> None:
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "half.mp4").write_bytes((folder / "a.mp4").read_bytes()[:900])
    film(folder / "slow.mp4", 10, fps=1)
    film(folder / "short.mp4", 3)
    for _ in range(2):
        episodes = watched(folder)
        assert len(episodes) == 4
        said = " ".join(episodes.remarks)
        assert "empty.mp4 is truncated or no video" in said
        assert "half.mp4 is truncated or no video" in said
        assert "slow.mp4 has 1 pictures a second, fewer than rate_hz=5" in said
        assert "short.mp4 has 1 pictures at 5 Hz" in said
        assert "4 of 8 videos could not be used" in said
        assert len(list((folder / ".decoded").iterdir())) == 2


def test_nothing_but_damaged_videos_is_refused_and_leaves_no_cache(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(
        DatasetError, match=r"none of the 1 videos in .* can be used: .*a\.mp4 is truncated or no video"
    ):
        watched(tmp_path)
    assert not list((tmp_path / ".decoded").iterdir())


def test_a_folder_without_anything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"neither a LeRobotDataset \(meta/info.json\) nor videos"):
        watched(tmp_path)
    film(tmp_path / "a.mp4", 30)
    for wrong, words in (({"rate_hz": -1.0}, "rate_hz is -1"), ({"episode_frames": 1}, "episode_frames is 1")):
        with pytest.raises(DatasetError, match=words):
            watched(tmp_path, **wrong)
    with pytest.raises(DatasetError, match=r"one camera; architecture\.cameras has 2"):
        Episodes([tmp_path], ("front", "wrist"), TABLETOP, video_only=True)


def test_where_nothing_can_be_written_the_cache_goes_under_outputs(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / ".decoded").write_text("a file, so that no folder can be made here")
    assert len(watched(folder)) == 4
    assert list((tmp_path / "outputs/decoded").glob("films-*/videos-*.bytes"))


def test_what_a_killed_decoder_left_is_cleared_and_changed_videos_are_read_again(folder: Path) -> None:
    (folder / ".decoded").mkdir()
    left = folder / ".decoded/videos-0123.bytes.999999999.part"
    left.write_bytes(b"half")
    before = watched(folder).fingerprints
    assert not left.exists()
    film(folder / "a.mp4", 120)
    after = watched(folder)
    assert after.fingerprints != before
    assert after.lengths[0] == 20


def test_the_command_learns_from_a_folder_and_adapt_refuses_it(
    folder: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    sizes = {"cameras": [], "state_size": None, "action_size": None}
    out = tmp_path / "video"
    asked = config("pretrain", data=str(folder), out=str(out), architecture=sizes)
    assert pretrain.main(asked) == 0
    card = json.loads((out / "card.json").read_text())
    assert card["architecture"]["cameras"] == ["video"]
    assert card["data"][0]["fingerprint"].endswith("-32px-5hz-64frames")
    # The encoder serves any one camera, whatever its name.
    brain = str(tmp_path / "brain")
    begun = config("adapt", data=str(tiny_dataset), out=brain, encoder=str(out), architecture=sizes)
    assert adapt.main(begun) == 0
    assert load(brain, "cpu").required_keys == ("observation.images.front", "observation.state")
    with pytest.raises(DatasetError, match=r"is a folder of videos: there are no actions to adapt to"):
        adapt.main(config("adapt", data=str(folder), out=str(tmp_path / "no"), architecture=sizes))
    assert not (tmp_path / "no").exists()
