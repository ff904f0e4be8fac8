"""`evaluate RUN --video`: agents of every system, by the shipped models."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate
from common import film
from common.errors import UserError
from common.runs import checkpoint
from envs.drawing import drawing_of
from tests.helpers.launch import command

EXAMPLES = "checkpoints/examples"


@pytest.mark.parametrize(
    "run, agents, labels",
    [
        ("grid_navi", "4,0", ["task 4, goal ", "task 0, goal "]),
        (
            "rmdp_resource_k3",
            "",
            [f"policy {j}, for {n} agents: agent " for j, n in ((0, 10), (1, 8), (2, 7))],
        ),
        ("persim_cart_pole_pure", "0,3", ["agent 0, force 2, length 0.5", "agent 3, force 10, length 0.85"]),
        ("caml_particle", "5", ["agent 5, group 1"]),
    ],
)
def test_agents_of_every_system_are_filmed(run, agents, labels, tmp_path):
    stored, _, contents = evaluate.open_run(Path(EXAMPLES) / run)
    evaluation, path = evaluate.EVALUATIONS[stored["system"]], tmp_path / "out.gif"
    flags = ["--video", str(path), "--video_agents", agents, "--video_steps", "4"]
    settings = evaluation.parse_settings(flags if agents else flags[:2] + flags[4:], show=False)
    scene = evaluation.scene(stored, checkpoint.unpack(contents)[1], settings)
    assert all(text.startswith(start) for text, start in zip(scene.labels, labels, strict=True)), scene.labels
    returns = film.shoot(scene, drawing_of, settings.video, "title")
    assert returns.shape == (len(labels),) and np.isfinite(returns).all()
    with Image.open(path) as made:
        assert made.n_frames >= 2 and made.width > 200


@pytest.mark.mpi
def test_two_ranks_make_one_film_and_no_tables(tmp_path):
    path = tmp_path / "out.gif"
    done = command(2, "evaluate", f"{EXAMPLES}/grid_navi", "--video", path, "--video_steps", 3)
    assert done.code == 0 and done.output.count("film: ") == 1 and "random" not in done.output, done.output
    assert path.read_bytes().startswith(b"GIF89a")
    wrong = command(1, "evaluate", f"{EXAMPLES}/mdp_n10", "--video", path)
    assert wrong.code == 2 and wrong.output.count("\n") == 1 and "no pictures of tabular_mdp" in wrong.output


@pytest.mark.parametrize(
    "flags, text",
    [
        (["--video", "out.avi"], "ending"),
        (["--video", "out.gif", "--instances", "3"], "--instances: has an effect only with tables"),
        (["--video_steps", "3"], "--video_steps: has an effect only with --video"),
    ],
)
def test_flags_without_an_effect_are_refused(flags, text):
    from common.config import check_outputs

    with pytest.raises(UserError, match=text):
        check_outputs(evaluate.EVALUATIONS["rl2"].parse_settings(flags, show=False))
