"""The loop: a killed run ends as an undisturbed one, and bad starts are refused."""

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from data_pipelines.artefacts import names_in
from tests.quick_compile import QUICK
from tests.tiny import random_batch, tiny_model
from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import MeshConfig, make_mesh
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.preference.reference import make_reference_step
from tpo_jax.training.boards import TENSORBOARD_FOLDER
from tpo_jax.training.checkpoints import read_params
from tpo_jax.training.loop import CHECKPOINTS_FOLDER, LoopConfig, train
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, split_frozen
from tpo_jax.training.run_log import BAD_BATCHES_FILE, METRICS_FILE, read_metrics
from tpo_jax.training.step import TrainState, init_state, make_train_step
from tpo_jax.training.step_clock import PARTS, goodput, time_spent, without_timing

pytestmark = pytest.mark.usefixtures("quick_training")
STEPS = 6
TOLD: list[str] = []  # progress lines of the undisturbed run


@cache
def made(learning_rate: float) -> tuple[Any, Callable[..., Any], Callable[..., Any]]:
    """The optimizer, the step and the scores of the reference: traced once for all runs."""
    _, graph, _ = tiny_model()
    optimizer = make_optimizer(OptimizerConfig(learning_rate=learning_rate), STEPS)
    step = make_train_step(graph, TPOLoss(), optimizer, jnp.dtype("float32"))
    score = make_reference_step(graph, jnp.dtype("float32"))
    return optimizer, step, jax.jit(score, compiler_options=QUICK)


def run(
    folder: epath.PathLike,
    *,
    notes: Path | None = None,
    stop_after: int | None = None,
    reference: bool = True,
    learning_rate: float = 1e-3,
    told: list[str] | None = None,
    after: Callable[[], None] = lambda: None,
) -> TrainState:
    """A run of six steps; `stop_after` kills it after so many, `after` is called after each."""
    config, _, params = tiny_model()
    epath.Path(folder).mkdir(exist_ok=True, parents=True)
    optimizer, step, score = made(learning_rate)

    def batches_from(start: int) -> Iterator[dict[str, np.ndarray]]:
        for number in range(start, STEPS):
            batch = random_batch(config, number, rows=2)
            if reference:
                batch["reference_logprobs"] = np.asarray(score(params, batch))
            yield batch

    def progress(done: int, total: int, detail: str) -> None:
        if told is not None:
            told.append(detail)
        after()
        if done == stop_after:
            raise KeyboardInterrupt

    return train(
        init_state(*split_frozen(params, ("vision",)), optimizer),
        step,
        batches_from,
        folder,
        notes=notes,
        config=LoopConfig(steps=STEPS, save_every=2),
        mesh=make_mesh(MeshConfig(), devices=1),
        compute_dtype="float32",
        at_reference=math.log(2),
        progress=progress,
        warn=pytest.fail,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainState]:
    folder = tmp_path_factory.mktemp("whole")
    state = run(folder, told=TOLD)
    return folder, state


@pytest.mark.parametrize("stop_after", [1, 2, 5])
def test_killed_and_resumed_is_bit_equal(
    tmp_path: Path, stop_after: int, undisturbed: tuple[Path, TrainState]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", stop_after=stop_after)
    check_equal(tmp_path / "killed", run(tmp_path / "killed"), undisturbed)


def check_equal(
    folder: epath.PathLike, resumed: TrainState, undisturbed: tuple[Path, TrainState]
) -> None:
    """State, metrics and the last checkpoint are those of the undisturbed run, bit for bit."""
    expected_folder, whole = undisturbed
    for ours, theirs in zip(
        jax.tree.leaves(resumed.params), jax.tree.leaves(whole.params), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    told, expected = read_metrics(folder), read_metrics(expected_folder)
    assert list(map(without_timing, told)) == list(map(without_timing, expected))
    stored = read_params(epath.Path(folder) / CHECKPOINTS_FOLDER)
    for ours, theirs in zip(
        jax.tree.leaves(stored), jax.tree.leaves(dict(whole.params)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_in_a_bucket_it_goes_on_on_another_machine(
    bucket: epath.Path, tmp_path: Path, undisturbed: tuple[Path, TrainState]
) -> None:
    folder = bucket / "runs" / "train"
    with pytest.raises(KeyboardInterrupt):
        run(folder, notes=tmp_path / "one", stop_after=3)
    assert len(read_metrics(folder)) == 3
    # Lines of another run, which happen to lie there.
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / BAD_BATCHES_FILE).write_text('{"step": 1}\n')
    check_equal(folder, run(folder, notes=tmp_path / "another"), undisturbed)
    assert names_in(folder) == {CHECKPOINTS_FOLDER, METRICS_FILE}
    assert names_in(tmp_path / "another") == {METRICS_FILE, TENSORBOARD_FOLDER}


def test_no_checkpoint_is_ahead_of_its_metrics(bucket: epath.Path, tmp_path: Path) -> None:
    """What a killed process leaves: the lines in the bucket are those of the checkpoint."""
    folder, seen = bucket / "ahead", []
    run(folder, notes=tmp_path / "notes", after=lambda: seen.append(len(read_metrics(folder))))
    assert seen == [1, 2, 2, 4, 4, 6]  # the first step is always saved


def test_the_time_of_a_run_is_told(undisturbed: tuple[Path, TrainState]) -> None:
    lines = read_metrics(undisturbed[0])
    for line in lines:
        parts = [line[f"{part}_seconds"] for part in PARTS]
        assert min(parts) >= 0 and line["step_seconds"] > 0
        assert sum(parts) <= line["wall_seconds"] + 1e-6
    assert lines[0]["compile_seconds"] > 0
    assert not any(line["compile_seconds"] for line in lines[1:])
    # Saved after steps 2 and 4, told with the next; the save after the last is in no line.
    assert lines[0]["save_seconds"] == 0
    assert min(lines[2]["save_seconds"], lines[4]["save_seconds"]) > 1e-3
    assert 0 < goodput(time_spent(lines)) < 1


def test_a_progress_line_has_the_numbers_of_its_step(undisturbed: tuple[Path, TrainState]) -> None:
    lines = read_metrics(undisturbed[0])
    assert len(TOLD) == len(lines) == STEPS
    for number, line in enumerate(lines, start=1):
        share = goodput(time_spent(lines[:number]))
        assert TOLD[number - 1] == (
            f"loss {line['loss']:.3f}, margin {line['reward_margin']:.3f}, "
            f"accuracy {line['reward_accuracy']:.0%}, {line['step_seconds']:.3g} s a step, "
            f"input {line['input_seconds']:.2g} s, {share:.0%} of the time in steps"
        )


def test_the_first_step_starts_at_ln_2(undisturbed: tuple[Path, TrainState]) -> None:
    first = read_metrics(undisturbed[0])[0]
    assert first["dpo_loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert first["reward_margin"] == pytest.approx(0, abs=1e-5)


def test_a_table_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="reference table was not made by this model"):
        run(tmp_path, reference=False)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="learning_rate"):
        run(tmp_path, learning_rate=1e30)


def test_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tpo train"):
        read_params(tmp_path)
