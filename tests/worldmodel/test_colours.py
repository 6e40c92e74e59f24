"""Colours change for whole scenes at a time, grey stays grey, and some scenes stay as they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.worldmodel.conftest import SMALL
from worldmodel import refine, timed
from worldmodel.colours import Recolouring, draw_recolouring, recoloured, recoloured_windows
from worldmodel.data import GROUP, Episodes
from worldmodel.interface import TABLETOP
from worldmodel.networks import Networks
from worldmodel.refine import encode_all


def changed(pictures: Tensor, light: float, hue: float = 0.0) -> Tensor:
    return recoloured(pictures, draw_recolouring(len(pictures), torch.Generator().manual_seed(0), light, hue))


def test_all_of_a_row_changes_alike_or_not_at_all() -> None:
    pictures = torch.full((3, 2, 4, 4, 3), 100, dtype=torch.uint8)
    assert changed(pictures, 0.0).equal(pictures)
    shaken = changed(pictures, 0.3)
    assert all(len(row.unique()) == 1 for row in shaken)
    assert len(shaken.unique()) == 3


def test_turned_colours_keep_their_grey_and_may_become_any_other() -> None:
    grey = torch.full((4, 5, 3), 90, dtype=torch.uint8)
    assert (changed(grey, 0.0, 1.0).int() - 90).abs().max() <= 1
    red = torch.tensor([150, 50, 50], dtype=torch.uint8).expand(400, 2, 3)
    turned = changed(red, 0.0, 1.0)
    assert turned[:, 0].equal(turned[:, 1])
    assert set(turned[:, 0].argmax(-1).tolist()) == {0, 1, 2}
    assert (turned[:, 0].float().mean(-1) - 250 / 3).abs().max() < 1.5
    assert set(changed(red, 0.0, 0.1)[:, 0].argmax(-1).tolist()) == {0}


def test_a_share_of_the_scenes_stays_as_it_is() -> None:
    red = torch.tensor([150, 50, 50], dtype=torch.uint8).expand(400, 2, 3)
    drawn = draw_recolouring(400, torch.Generator().manual_seed(0), 0.2, 1.0, share=0.7)
    kept = (recoloured(red, drawn) == red).all(-1).all(-1).float().mean()
    assert 0.2 < kept < 0.4


def test_windows_of_a_scene_their_goals_and_twins_change_alike(tiny_dataset) -> None:
    episodes = Episodes([tiny_dataset], SMALL.cameras, TABLETOP)
    windows = episodes.draw(torch.arange(8), 10, 3, 5, torch.Generator().manual_seed(0))
    turned = recoloured_windows(windows, torch.Generator().manual_seed(0), 0.0, 1.0)

    def everything(of) -> Tensor:  # (windows, frames + 2, ...)
        return torch.cat([of.pictures, of.goal_pictures[:, None], of.twin_pictures[:, None]], 1)

    before, after = everything(windows), everything(turned)
    drawn = draw_recolouring(3, torch.Generator().manual_seed(0), 0.0, 1.0, 0.7)
    for scene, rows in enumerate(torch.arange(10).split(GROUP)):
        alone = Recolouring(drawn.turn[scene : scene + 1], drawn.offset[scene : scene + 1])
        assert recoloured(before[rows][None], alone)[0].equal(after[rows])
    assert not before.equal(after)
    assert turned.states is windows.states


def test_refinement_looks_at_a_scene_under_its_own_colours(tiny_dataset) -> None:
    episodes = Episodes([tiny_dataset], SMALL.cameras, TABLETOP)
    episodes.scenes = torch.arange(len(episodes)) // 2
    networks = Networks(SMALL)
    here = torch.device("cpu")
    plain = encode_all(networks, episodes, here, bf16=False)
    stays, turns = torch.eye(3), torch.eye(3)[[1, 2, 0]]
    count = int(episodes.scenes.max()) + 1
    turn = torch.stack([turns if scene == 1 else stays for scene in range(count)])
    own = encode_all(networks, episodes, here, False, Recolouring(turn, torch.zeros(count, 1)))
    of_scene = torch.repeat_interleave(episodes.scenes, episodes.lengths)
    assert own[of_scene != 1].allclose(plain[of_scene != 1], atol=1e-5)
    assert ((own - plain)[of_scene == 1].abs().amax(-1) > 1e-3).all()


def test_looking_goes_on_where_it_was_killed(tiny_dataset, tmp_path, monkeypatch) -> None:
    episodes = Episodes([tiny_dataset], SMALL.cameras, TABLETOP)
    networks = Networks(SMALL)
    here = torch.device("cpu")
    monkeypatch.setattr(refine, "ENCODING_BATCH", 8)
    monkeypatch.setattr(timed, "SAVE_S", 0.0)
    whole = encode_all(networks, episodes, here, bf16=False)
    keeping = timed.Keeping(tmp_path / "stage", {})
    keeping.begin()
    looked: list[int] = []
    look = networks.encoder.forward

    def counted(pictures: Tensor, found: Tensor | None = None) -> Tensor:
        if len(looked) == 3:
            looked.clear()
            raise KeyboardInterrupt
        looked.append(len(pictures))
        return look(pictures, found)

    monkeypatch.setattr(networks.encoder, "forward", counted)
    with pytest.raises(KeyboardInterrupt):
        encode_all(networks, episodes, here, False, keeping=keeping)
    monkeypatch.setattr(networks.encoder, "forward", lambda *args: looked.append(len(args[0])) or look(*args))
    keeping.begin()
    assert encode_all(networks, episodes, here, False, keeping=keeping).equal(whole)
    assert sum(looked) == len(whole) - 3 * 8
