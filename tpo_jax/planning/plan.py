"""A plan: what the compiler says of a step on a slice, its FLOPs, its time, and the run's cost."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tpo_jax.parallel.mesh import MeshConfig
from tpo_jax.planning.compiler import Compile, Compiled
from tpo_jax.planning.estimate import RunCost, StepTime, adamw_bytes, modelled_time, run_cost
from tpo_jax.planning.flops import Flops
from tpo_jax.planning.hardware import Slice
from tpo_jax.planning.largest import largest_fitting
from tpo_jax.planning.work import Work, chip_flops, pair_flops, slice_mesh

# Of a chip's memory. The rest is for what the compiler does not see: the next batch, the runtime.
USABLE = 0.9
FP32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One step on one slice.

    Attributes:
      work, mesh, where: what was compiled; the mesh is filled.
      compiled: what the compiler said.
      flops: of one pair.
      time: None where the program was refused or could not be read.
      cost: of the run, if there is a time; of generation, of as many answers.
      pairs_in_run: that the cost is for.
    """

    work: Work
    mesh: MeshConfig
    where: Slice
    compiled: Compiled
    flops: Flops
    time: StepTime | None
    cost: RunCost | None
    pairs_in_run: int

    @property
    def usable_bytes(self) -> float:
        """What a step may take of a device."""
        return USABLE * self.where.hbm_bytes_per_device

    @property
    def fits(self) -> bool:
        """Whether it takes no more."""
        return not self.compiled.refused and self.compiled.peak_bytes <= self.usable_bytes


def make_plan(
    work: Work, mesh: MeshConfig, where: Slice, *, pairs_in_run: int, compile_work: Compile
) -> Plan:
    """Compiles the step for the slice and works out the rest.

    Raises:
      InputError: the work does not fit the mesh, or the compiler knows no such slice.
    """
    filled = slice_mesh(mesh, where)
    compiled = compile_work(work, filled, where)
    time = None
    if compiled.traffic is not None:
        time = modelled_time(
            chip_flops(work, filled, where),
            compiled.traffic,
            where,
            hbm_bytes=where.chip.devices * decoding_bytes(work, filled, compiled),
            # Of training alone; no other step has gradients.
            update_bytes=where.chip.devices * adamw_bytes(compiled.known["gradients"] / FP32_BYTES),
        )
    cost = None
    if time is not None:
        cost = run_cost(time, pairs=pairs_in_run, pairs_per_step=work.pairs, chips=where.chips)
    return Plan(
        work=work,
        mesh=filled,
        where=where,
        compiled=compiled,
        flops=pair_flops(work),
        time=time,
        cost=cost,
        pairs_in_run=pairs_in_run,
    )


def decoding_bytes(work: Work, mesh: MeshConfig, compiled: Compiled) -> float:
    """What a device reads of its HBM while answers are generated: products do not hide it.

    For every token the parameters, whole but for `tensor`, once they are gathered, and the cache of
    its prompts' keys and values.
    """
    if work.step != "generate":
        return 0.0
    language = work.config.language
    shards = mesh.fsdp * mesh.context
    size = 2 if work.compute_dtype == "bfloat16" else 4
    places = work.prompt_tokens + work.answer_tokens
    cache = 2 * language.layers * places * language.kv_heads * language.head_width * size
    prompts = work.pairs / (mesh.data * mesh.fsdp * mesh.context * mesh.tensor)
    return work.answer_tokens * (compiled.known["parameters"] * shards + prompts * cache)


def find_largest(
    mesh: MeshConfig,
    where: Slice,
    *,
    changed: Callable[[int], Work],
    start: int,
    step: int,
    what: str,
    compile_work: Compile,
) -> tuple[Work, Compile]:
    """The work with the largest number that fits, and a compiler that remembers what it was asked.

    Args:
      mesh: of the config.
      where: the slice.
      changed: the work with a number of frames or pairs.
      start: a number that may fit.
      step: only multiples of it divide over the mesh.
      what: is counted.
      compile_work: used for each number once.

    Raises:
      InputError: not even `step` fits.
    """
    filled = slice_mesh(mesh, where)
    seen: dict[tuple[int, int], Compiled] = {}

    def remembered(asked: Work, sizes: MeshConfig, place: Slice) -> Compiled:
        key = (asked.frames, asked.pairs)
        if key not in seen:
            seen[key] = compile_work(asked, sizes, place)
        return seen[key]

    number = largest_fitting(
        lambda count: remembered(changed(count), filled, where).peak_bytes,
        USABLE * where.hbm_bytes_per_device,
        start=start,
        step=step,
        what=what,
    )
    return changed(number), remembered


def plan_json(plan: Plan) -> dict[str, Any]:
    """Everything that is known, bytes and seconds as they are."""
    work, compiled, flops, time = plan.work, plan.compiled, plan.flops, plan.time
    traffic = compiled.traffic
    return {
        "slice": plan.where.name,
        "chips": plan.where.chips,
        "devices": plan.where.devices,
        "step": work.step,
        "mesh": compiled.mesh,
        "pairs": work.pairs,
        "frames": work.frames,
        "row": {
            "tokens": work.row_tokens,
            "prompt": work.prompt_tokens,
            "answer": work.answer_tokens,
            "answers": work.answers,
        },
        "remat": work.config.language.remat,
        "memory": {
            "peak_bytes": compiled.peak_bytes,
            "device_bytes": plan.where.hbm_bytes_per_device,
            "usable_bytes": plan.usable_bytes,
            "fits": plan.fits,
            "refused": compiled.refused,
            "parts": compiled.parts,
            "host_bytes": compiled.host_bytes,
            "sizes": compiled.sizes,
        },
        "flops_per_pair": {
            "forward": dict(flops.forward),
            "backward": dict(flops.backward),
            "recompute": dict(flops.recompute),
            "model": flops.model_flops,
            "hardware": flops.hardware_flops,
        },
        "traffic": None
        if traffic is None
        else {
            "by_kind": traffic.by_kind,
            "ici_bytes": traffic.ici_bytes,
            "dcn_bytes": traffic.dcn_bytes,
            "host_bytes": traffic.host_bytes,
            "transfers": [asdict(transfer) for transfer in traffic.transfers],
            "unknown_loops": list(traffic.unknown_loops),
        },
        "time": None
        if time is None
        else {
            "seconds": time.seconds,
            "bound_by": time.bound_by,
            "utilisation": time.utilisation,
            "by_resource": time.by_resource,
            "blocking": time.blocking,
            "update": time.update,
        },
        "run": None if plan.cost is None else {"pairs": plan.pairs_in_run, **asdict(plan.cost)},
        "compile_seconds": compiled.seconds,
    }
