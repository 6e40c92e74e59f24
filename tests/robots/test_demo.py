"""`premotor demo` leaves everything it promises, whatever the model is worth."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
from PIL import Image

from planners import Rollout
from robots import viewer
from tests.robots.conftest import Premotor


def test_the_demo_leaves_what_it_promises(call: Premotor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("demo", "tasks.reach=1", "tasks.push=1", "out=d") == 0
    said = capsys.readouterr().out
    folder = tmp_path / "d"
    results = json.loads((folder / "results.json").read_text())
    assert [(row["task"], row["seed"], row["steps"]) for row in results["episodes"]] == [
        ("reach", 10_000, 15),
        ("push", 10_001, 30),
    ]
    assert results["weights"]
    assert results["plan_ms_median"] > 0
    for row in results["episodes"]:
        assert f"{row['final_distance_cm']:.1f} cm" in said
    assert "Open in Rerun" in said
    assert f"{results['successes']} of 2 goals reached" in said
    assert viewer.verify(folder / "rollout.rrd")[0]
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.width > 800
    with av.open(str(folder / "film.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 16 + 31
    assert len(Rollout.load(folder / "rollouts" / "push-10001").steps) == 30


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=3"], "shows unseen goals"),
        (["tasks.reach=0", "tasks.push=0"], "names no episode"),
        (["tasks.push=-1"], "a number of episodes"),
        (["tasks.pusch=1"], "did you mean tasks.push"),
    ],
)
def test_words_that_make_no_demo(
    call: Premotor, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("demo", *words) == 2
    assert said in capsys.readouterr().err
