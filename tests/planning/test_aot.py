"""Work on a mesh as shapes, the child process, and plans from what a compiler says."""

from dataclasses import asdict, replace
from importlib.util import find_spec

import jax
import pytest

from tests.tiny import random_batch, tiny_model
from tpo_jax.errors import InputError
from tpo_jax.parallel.mesh import MeshConfig, make_mesh, place_batch
from tpo_jax.planning import aot, compiler
from tpo_jax.planning.compiler import Compiled, compile_in_child, compiled_from_json
from tpo_jax.planning.hardware import parse_slice
from tpo_jax.planning.plan import find_largest, make_plan
from tpo_jax.planning.traffic import Traffic, Transfer
from tpo_jax.planning.work import (
    Work,
    abstract_batch,
    abstract_state,
    batch_shapes,
    check_work,
    chip_flops,
    device_bytes,
    pair_flops,
    slice_mesh,
)
from tpo_jax.preference.losses import TPOLoss
from tpo_jax.training.loop import init_sharded_state
from tpo_jax.training.optimizer import OptimizerConfig, make_optimizer, split_frozen

SLICE = parse_slice("v5e:2x2")
needs_libtpu = pytest.mark.skipif(
    find_spec("libtpu") is None, reason="libtpu, which holds the TPU compiler, is not installed"
)


def tiny_work(**changes: object) -> Work:
    """The tiny model on rows of `tests.tiny.random_batch`."""
    config, _, _ = tiny_model(remat="full")
    settings = {
        "config": config,
        "frames": 3,
        "prompt_tokens": config.tokens_per_video(3) + 16,
        "answer_tokens": 8,
        "prompt_targets": 3,
        "pairs": 4,
        "loss": TPOLoss(
            preference="sigmoid",
            beta=0.1,
            dpo_weight=1.0,
            sft_weight=1.0,
            sft_reduction="pair_mean",
        ),
        "optimizer": OptimizerConfig(learning_rate=1e-6),
    }
    return Work(**(settings | changes))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- shapes and bytes


def test_a_batch_has_the_shapes_of_real_rows() -> None:
    work = tiny_work()
    real = random_batch(work.config, 0, 4, prompt_targets=3)
    planned = batch_shapes(work)
    assert {k: (v.shape, v.dtype) for k, v in planned.items()} == {
        k: (v.shape, v.dtype) for k, v in real.items()
    }
    reference = batch_shapes(replace(work, step="reference"))
    assert planned.keys() - reference.keys() == {"reference_logprobs"}


def test_sft_alone_has_one_answer_and_no_reference() -> None:
    work = tiny_work(loss=replace(tiny_work().loss, dpo_weight=0.0))
    shapes = batch_shapes(work)
    assert shapes["answers"].shape == (4, 1, 8)
    assert "reference_logprobs" not in shapes


def test_bytes_on_a_device_are_those_of_real_shards() -> None:
    """State and batch as the loop lays them out, on the virtual devices of the tests."""
    work = tiny_work()
    _, _, params = tiny_model(remat="full")
    mesh = make_mesh(MeshConfig(fsdp=2, data=2), 4)
    optimizer = make_optimizer(work.optimizer, 10)
    state = init_sharded_state(*split_frozen(params, ("vision",)), optimizer, mesh)
    batch = place_batch(mesh, random_batch(work.config, 0, 4, prompt_targets=3))

    def on_first(tree: object) -> int:
        leaves = jax.tree.leaves(tree)
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)

    planned = abstract_state(work, mesh)
    jax.tree.map(lambda shape, leaf: None, planned, state)  # the same structure
    assert device_bytes(planned) == on_first(state)
    assert device_bytes(planned.opt_state) == on_first(state.opt_state)
    assert device_bytes(abstract_batch(work, mesh)) == on_first(batch)


def test_frames_that_do_not_divide_make_the_busiest_chip_busier() -> None:
    mesh = slice_mesh(MeshConfig(), SLICE)
    even = chip_flops(tiny_work(frames=4), mesh, SLICE)
    assert even.hardware_flops == pytest.approx(pair_flops(tiny_work(frames=4)).hardware_flops)
    # 4 rows of 17 frames, 16 a chunk on each of 4 devices: 2 chunks, 72 places for 68 frames.
    odd, pair = chip_flops(tiny_work(frames=17), mesh, SLICE), pair_flops(tiny_work(frames=17))
    assert odd.forward["tower"] == pytest.approx(pair.forward["tower"] * 72 / 68)
    assert odd.forward["decoder"] == pytest.approx(pair.forward["decoder"])


# ------------------------------------------------------------------------------------- the mesh


def test_a_mesh_is_filled_as_in_training() -> None:
    assert slice_mesh(MeshConfig(context=2), SLICE) == MeshConfig(data=1, fsdp=2, context=2)
    two = parse_slice("2xv5e:2x2")
    assert slice_mesh(MeshConfig(), two) == MeshConfig(data=2, fsdp=4)
    assert slice_mesh(MeshConfig(data=4), two) == MeshConfig(data=4, fsdp=2)


@pytest.mark.parametrize(
    ("mesh", "where", "said"),
    [
        (MeshConfig(context=3), "v5e:2x2", "does not multiply to the 4 devices of v5e:2x2"),
        (MeshConfig(context=-1), "v5e:2x2", "only one axis may be -1"),
        (MeshConfig(tensor=0), "v5e:2x2", "config.mesh.tensor=0"),
        (MeshConfig(data=2, fsdp=6), "3xv5e:2x2", "config.mesh.data=2 does not divide over"),
    ],
)
def test_a_mesh_that_cannot_be(mesh: MeshConfig, where: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        slice_mesh(mesh, parse_slice(where))


@pytest.mark.parametrize(
    ("changes", "mesh", "said"),
    [
        ({"pairs": 6}, MeshConfig(fsdp=4), "config.train.batch_pairs=6"),
        ({"accumulate": 2}, MeshConfig(fsdp=4), "config.train.accumulate=2"),
        ({}, MeshConfig(fsdp=1, tensor=8), "config.mesh.tensor=8 does not divide the 4 query"),
        ({"answer_tokens": 7, "prompt_tokens": 33}, MeshConfig(fsdp=2, context=2), "context=2"),
    ],
)
def test_work_that_does_not_divide(changes: dict, mesh: MeshConfig, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_work(tiny_work(**changes), mesh)


# ------------------------------------------------------------------- what is made of the compiler


def fake_compile(bytes_of: dict | None = None, base: int = 2**30, per_frame: int = 2**27):
    """A compiler whose peak is a line in frames and pairs; it counts what it is asked."""
    asked: list[tuple[int, int]] = []

    def compile_work(work: Work, mesh: MeshConfig, where: object) -> Compiled:
        asked.append((work.frames, work.pairs))
        peak = base + per_frame * work.frames * work.pairs // 4
        return Compiled(
            mesh={"data": 1, "fsdp": 4, "context": 1, "tensor": 1},
            peak_bytes=peak,
            refused=peak > SLICE.hbm_bytes_per_device,
            known={"parameters": 100, "optimizer": 200, "gradients": 400, "batch": 10},
            sizes={},
            traffic=None if peak > SLICE.hbm_bytes_per_device else TRAFFIC,
            seconds={"lower": 1.0, "compile": 2.0},
        )

    compile_work.asked = asked  # type: ignore[attr-defined]
    return compile_work


TRAFFIC = Traffic(
    transfers=(
        Transfer(kind="all-gather", network="ici", bytes=1e6, group=4, axes=("fsdp",)),
        Transfer(kind="to-host", network="host", bytes=2e6, blocking=True),
    )
)


def test_what_was_compiled_survives_json() -> None:
    compiled = fake_compile()(tiny_work(), MeshConfig(), SLICE)
    assert compiled_from_json(asdict(compiled)) == compiled
    refused = replace(compiled, refused=True, traffic=None)
    assert compiled_from_json(asdict(refused)) == refused


def test_activations_are_the_rest() -> None:
    compiled = fake_compile()(tiny_work(), MeshConfig(), SLICE)
    assert sum(compiled.parts.values()) == compiled.peak_bytes
    assert compiled.parts["activations"] == compiled.peak_bytes - 710


def test_it_fits_up_to_nine_tenths() -> None:
    usable = int(0.9 * SLICE.hbm_bytes_per_device)
    for peak, fits in ((usable, True), (usable + 1, False)):
        plan = make_plan(
            tiny_work(),
            MeshConfig(),
            SLICE,
            pairs_in_run=100,
            compile_work=fake_compile(base=peak, per_frame=0),
        )
        assert plan.fits is fits
        assert plan.time is not None and plan.cost is not None and plan.cost.steps == 25


def test_what_is_refused_has_no_time() -> None:
    compile_work = fake_compile(base=2**40)
    plan = make_plan(tiny_work(), MeshConfig(), SLICE, pairs_in_run=100, compile_work=compile_work)
    assert not plan.fits and plan.time is None and plan.cost is None


def test_the_optimizer_costs_time_in_training_only() -> None:
    def update(step: str) -> float:
        known = {"parameters": 100, "optimizer": 0, "gradients": 400 * (step == "train")}

        def compile_work(*asked: object) -> Compiled:
            compiled = fake_compile()(tiny_work(), MeshConfig(), SLICE)
            return replace(compiled, known=known)

        plan = make_plan(
            tiny_work(step=step),
            MeshConfig(),
            SLICE,
            pairs_in_run=4,
            compile_work=compile_work,
        )
        assert plan.time is not None
        return plan.time.update

    # 100 trained parameters a chip, 32 bytes each, at 0.8 of the memory's speed.
    assert update("train") == pytest.approx(100 * 32 / (0.8 * SLICE.chip.hbm_bytes_per_s))
    assert update("reference") == 0


@pytest.mark.parametrize("start", [1, 8, 32, 400])
def test_the_most_frames_that_fit(start: int) -> None:
    compile_work = fake_compile()
    work, remembered = find_largest(
        MeshConfig(),
        SLICE,
        changed=lambda frames: tiny_work(frames=frames),
        start=start,
        step=1,
        what="frames",
        compile_work=compile_work,
    )
    # 1 GiB and 1/8 GiB a frame, in 0.9 * 15.75 GiB.
    assert work.frames == 105
    before = len(compile_work.asked)
    assert before <= 5
    assert remembered(work, MeshConfig(), SLICE).peak_bytes <= 0.9 * SLICE.hbm_bytes_per_device
    assert len(compile_work.asked) == before


@pytest.mark.parametrize(
    ("said", "needed"),
    [
        ("memory space hbm. Used 20.31G of 15.75G hbm. Exceeded by 4.56G.", int(20.31 * 2**30)),
        ("HLO temporaries (37.35G) exceeds available HBM (15.75G).", int(37.35 * 2**30) + 7),
        ("Ran out of memory in memory space vmem. Used 20.00M of 16.00M vmem.", None),
    ],
)
def test_the_compilers_refusal_is_read(said: str, needed: int | None) -> None:
    assert aot.needed_bytes(f"RESOURCE_EXHAUSTED: {said}", arguments=7) == needed


# ------------------------------------------------------------------------------ the child process


def test_without_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install tpo_jax\[plan\]"):
        compile_in_child(tiny_work(), MeshConfig(), SLICE)


@needs_libtpu
def test_what_the_child_refuses_is_a_sentence() -> None:
    with pytest.raises(InputError, match="v5e:3x5: the TPU compiler knows no such slice"):
        compile_in_child(tiny_work(pairs=15), MeshConfig(), parse_slice("v5e:3x5"))


@needs_libtpu
def test_what_is_too_large_is_a_result() -> None:
    """More parameters than a chip of 15.75 GiB holds."""
    work = tiny_work()
    language = replace(work.config.language, width=2**13, mlp_width=2**16, layers=2**4)
    huge = replace(work, config=replace(work.config, language=language), step="reference")
    compiled = compile_in_child(huge, MeshConfig(), SLICE)
    assert compiled.refused and compiled.traffic is None
    assert compiled.peak_bytes > max(SLICE.hbm_bytes_per_device, compiled.known["parameters"])
