"""Bytes of collectives and host copies, read from programs whose traffic is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tpo_jax.planning.traffic import (
    Transfer,
    count_bytes,
    read_traffic,
    replica_groups,
)

DEVICES, TIMES = 8, 5
AXES = {"a": 2, "b": 4}
ROWS, COLUMNS = 16, 32
LOCAL = ROWS * COLUMNS * 4  # bytes of what one device holds


def mesh() -> Mesh:
    return jax.make_mesh(
        tuple(AXES.values()), tuple(AXES), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()
    )


def compiled_text(function) -> str:
    """Optimized HLO of a function of one device's fp32 [ROWS, COLUMNS], run TIMES times."""

    def body(_, x):
        return function(x) * 0.5

    def looped(x):
        return jax.lax.fori_loop(0, TIMES, body, x)

    mapped = jax.shard_map(
        looped, mesh=mesh(), in_specs=P(("a", "b")), out_specs=P(("a", "b")), check_vma=False
    )
    shape = jax.ShapeDtypeStruct(
        (DEVICES * ROWS, COLUMNS), jnp.float32, sharding=NamedSharding(mesh(), P(("a", "b")))
    )
    text = jax.jit(mapped).lower(shape).compile().as_text()
    assert text is not None
    return text


def gather_and_cut(x):
    return jax.lax.all_gather(x, "b", axis=0, tiled=True)[:ROWS]


def scatter_and_repeat(x):
    return jnp.tile(jax.lax.psum_scatter(x, "b", scatter_dimension=0, tiled=True), (4, 1))


def shift(x):
    return jax.lax.ppermute(x, "b", [(i, (i + 1) % 4) for i in range(4)])


def exchange(x):
    return jax.lax.all_to_all(x, "b", split_axis=0, concat_axis=0, tiled=True)


@pytest.mark.parametrize(
    ("function", "kind", "sent", "axes"),
    [
        (lambda x: jax.lax.psum(x, "b"), "all-reduce", 2 * LOCAL * 3 / 4, ("b",)),
        (lambda x: jax.lax.psum(x, "a"), "all-reduce", 2 * LOCAL * 1 / 2, ("a",)),
        (lambda x: jax.lax.psum(x, ("a", "b")), "all-reduce", 2 * LOCAL * 7 / 8, ("a", "b")),
        (gather_and_cut, "all-gather", LOCAL * 3, ("b",)),
        (scatter_and_repeat, "reduce-scatter", LOCAL * 3 / 4, ("b",)),
        (shift, "collective-permute", LOCAL, ("b",)),
        (exchange, "all-to-all", LOCAL * 3 / 4, ("b",)),
    ],
)
def test_a_collective_in_a_loop(function, kind, sent, axes):
    traffic = read_traffic(compiled_text(function), mesh_shape=AXES)
    assert traffic.by_kind == {kind: TIMES * sent}
    assert [found.axes for found in traffic.transfers] == [axes]
    assert (traffic.dcn_bytes, traffic.host_bytes, traffic.unknown_loops) == (0, 0, ())


def test_loops_multiply():
    def twice(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: jax.lax.psum(y, "b") * 0.5, x)

    traffic = read_traffic(compiled_text(twice))
    assert traffic.by_kind == {"all-reduce": TIMES * 3 * 2 * LOCAL * 3 / 4}


def test_a_loop_of_unknown_length_is_named():
    def until(x):
        return jax.lax.while_loop(lambda y: y[0, 0] > 1, lambda y: jax.lax.psum(y, "b"), x)

    traffic = read_traffic(compiled_text(until))
    assert len(traffic.unknown_loops) == 1
    assert traffic.by_kind == {"all-reduce": TIMES * 2 * LOCAL * 3 / 4}


def test_groups_that_cross_slices():
    """Two slices of four: inside a ring, between them each device its own part."""
    slices = [0, 0, 0, 0, 1, 1, 1, 1]
    inside = read_traffic(compiled_text(lambda x: jax.lax.psum(x, "b")), slice_of=slices)
    assert inside.dcn_bytes == 0
    between = read_traffic(compiled_text(lambda x: jax.lax.psum(x, "a")), slice_of=slices)
    assert (between.ici_bytes, between.dcn_bytes) == (0, TIMES * LOCAL)
    both = read_traffic(compiled_text(lambda x: jax.lax.psum(x, ("a", "b"))), slice_of=slices)
    assert both.ici_bytes == TIMES * 2 * LOCAL * 3 / 4
    assert both.dcn_bytes == TIMES * LOCAL / 4
    moved = read_traffic(compiled_text(shift), slice_of=[0, 0, 1, 1] * 2)
    assert (moved.ici_bytes, moved.dcn_bytes) == (0, TIMES * LOCAL)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}, x={}", [[0, 2], [1, 3]]),
        ("replica_groups=[2,4]<=[8], x", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        (
            "replica_groups=[4,2]<=[2,2,2]T(0,2,1)",
            np.arange(8).reshape(2, 2, 2).transpose(0, 2, 1).reshape(4, 2).tolist(),
        ),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("replica_groups={}", []),
    ],
)
def test_groups(text, groups):
    assert replica_groups(text) == groups


def test_bytes_of_types():
    assert count_bytes("bf16[2,3]{1,0:T(8,128)(2,1)S(1)}") == 12
    assert count_bytes("(f32[4]{0}, u32[]{:S(2)}, pred[3], token[])") == 16 + 4 + 3
    assert count_bytes("f8e4m3fn[5], s4[3]") == 5 + 2


# ------------------------------------------------------------- forms that only TPU programs have

TPU_HEADER = "HloModule jit_step, num_partitions=16\n\n"
LISTED = "replica_groups={{0,1,2,3}}"


def entry(*lines: str) -> str:
    return TPU_HEADER + "ENTRY %main (p: f32[8]) -> f32[8] {\n  " + "\n  ".join(lines) + "\n}\n"


@pytest.mark.parametrize(
    ("first", "limit", "step", "direction", "trips"),
    [(0, 6, 1, "LT", 6), (1, 6, 1, "LT", 5), (0, 7, 2, "LT", 4), (0, 6, 1, "LE", 7)],
)
@pytest.mark.parametrize("carried", [False, True])
def test_a_trip_count_is_read_from_the_loop_itself(first, limit, step, direction, trips, carried):
    """TPU programs do not say it. The limit may be a constant or carried through the loop."""
    state = "(s32[], f32[8]{0}, s32[])"
    bound = (
        "%n = s32[] get-tuple-element(%q), index=2" if carried else f"%n = s32[] constant({limit})"
    )
    condition = (
        f"%condition (q: {state}) -> pred[] {{\n  %q = {state} parameter(0)\n  {bound}\n"
        "  %i = s32[] get-tuple-element(%q), index=0\n"
        f"  ROOT %t = pred[] compare(%i, %n), direction={direction}\n}}\n\n"
    )
    body = (
        f"%body (q: {state}) -> {state} {{\n  %q = {state} parameter(0)\n"
        "  %i = s32[] get-tuple-element(%q), index=0\n  %c = s32[] copy(%i)\n"
        f"  %s = s32[] constant({step})\n  %j = s32[] add(%c, %s)\n"
        "  %n = s32[] get-tuple-element(%q), index=2\n"
        "  %x = f32[8]{0} get-tuple-element(%q), index=1\n"
        f"  %r = f32[8]{{0}} all-reduce(%x), {LISTED}\n"
        f"  ROOT %u = {state} tuple(%j, /*index=1*/%r, %n)\n}}\n\n"
    )
    text = entry(
        "%p = f32[8]{0} parameter(0)",
        f"%z = s32[] constant({first})",
        f"%l = s32[] constant({limit})",
        "%c = s32[] copy(%z)",
        f"%t = {state} tuple(%c, %p, %l)",
        f"%w = {state} while(%t), condition=%condition, body=%body",
    ).replace("ENTRY", condition + body + "ENTRY")
    traffic = read_traffic(text)
    assert traffic.unknown_loops == ()
    assert traffic.by_kind == {"all-reduce": trips * 2 * 32 * 3 / 4}


def test_of_two_branches_the_one_that_moves_more_is_counted():
    def branch(name: str, size: int) -> str:
        return (
            f"%{name} (q: f32[{size}]) -> f32[8] {{\n  %q = f32[{size}]{{0}} parameter(0)\n"
            f"  ROOT %r = f32[{size}]{{0}} all-reduce(%q), {LISTED}\n}}\n\n"
        )

    text = entry(
        "%p = f32[8]{0} parameter(0)",
        "%o = f32[8]{0} conditional(%p, %p, %p), branch_computations={%small, %large}",
    ).replace("ENTRY", branch("small", 8) + branch("large", 16) + "ENTRY")
    assert read_traffic(text).by_kind == {"all-reduce": 2 * 64 * 3 / 4}


def test_a_scatter_that_is_a_fusion():
    text = entry(
        "%p = f32[1024]{0} parameter(0)",
        "ROOT %f = f32[256]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1",
    ).replace(
        "ENTRY",
        "%all-reduce-scatter.1 (q: f32[1024]) -> f32[256] {\n"
        "  %q = f32[1024]{0} parameter(0)\n"
        f"  %r = f32[1024]{{0}} all-reduce(%q), {LISTED}, to_apply=%add\n"
        "  ROOT %s = f32[256]{0} dynamic-slice(%r, %i), dynamic_slice_sizes={256}\n}\n\nENTRY",
    )
    assert read_traffic(text).by_kind == {"reduce-scatter": 4096 * 3 / 4}


def test_a_chain_of_fusions_is_counted_once():
    def part(name: str, start: str) -> str:
        config = f'{{"async_collective_fusion_config":{{"flag_start":"{start}"}}}}'
        return (
            f"%{name} (q: f32[8]) -> f32[32] {{\n  %q = f32[8]{{0}} parameter(0)\n"
            f"  ROOT %g = f32[32]{{0}} all-gather(%q), {LISTED}, backend_config={config}\n}}\n\n"
        )

    text = entry(
        "%p = f32[8]{0} parameter(0)",
        "%one = f32[32]{0} fusion(%p), kind=kCustom, calls=%first",
        "ROOT %two = f32[32]{0} fusion(%p), kind=kCustom, calls=%second",
    ).replace("ENTRY", part("first", "-1") + part("second", "2") + "ENTRY")
    traffic = read_traffic(text)
    assert traffic.by_kind == {"all-gather": 3 * 32}
    assert not traffic.transfers[0].blocking


def test_starts_are_counted_and_ends_are_not():
    text = entry(
        "%p = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)",
        "%s = (bf16[8,4]{1,0:T(8,128)}, bf16[32,4]{1,0:T(8,128)}) all-gather-start(%p), " + LISTED,
        "ROOT %d = bf16[32,4]{1,0:T(8,128)} all-gather-done(%s)",
    )
    assert read_traffic(text).transfers == (
        Transfer(kind="all-gather", network="ici", bytes=3 * 64, group=4),
    )


def test_an_attribute_over_several_lines_does_not_end_a_computation():
    text = entry(
        "%p = f32[100]{0} parameter(0)",
        "%k = f32[100]{0} custom-call(%p), frontend_attributes={kernel_metadata={\n"
        '"xprof_metadata":"{1}"\n}}, metadata={op_name="splash"}',
        f"ROOT %r = f32[100]{{0}} all-reduce(%k), {LISTED}",
    )
    assert read_traffic(text).by_kind == {"all-reduce": 600}


def test_what_goes_between_slices():
    attributes = (
        'frontend_attributes={_xla_megascale_target="{1,2,3,4}x{0:15}",'
        '_xla_megascale_transfer_type="ALL_REDUCE"}'
    )
    text = entry(
        "%p = f32[100]{0} parameter(0)",
        "%t = token[] after-all()",
        f"%s = (f32[100]{{0}}, u32[], token[]) send(%p, %t), channel_id=2, {attributes}",
        f"ROOT %d = token[] send-done(%s), channel_id=2, {attributes}",
    )
    traffic = read_traffic(text)
    assert (traffic.by_kind, traffic.dcn_bytes) == ({"all-reduce": 600}, 600)


HOST, CHIP = "f32[6,8]{1,0:T(8,128)S(5)}", "f32[6,8]{1,0:T(8,128)}"
ROW = "f32[1,8]{1,0:T(8,128)}"


@pytest.mark.parametrize(
    ("lines", "kind", "size"),
    [
        ([f"%c = ({CHIP}, {HOST}, u32[]{{:S(2)}}) copy-start(%h)"], "from-host", 192),
        ([f"%c = ({HOST}, {CHIP}, u32[]{{:S(2)}}) copy-start(%x)"], "to-host", 192),
        ([f"%c = {HOST} copy(%x)"], "to-host", 192),
        (
            [f"%c = (({HOST}, s32[], s32[]), {ROW}, u32[]) dynamic-slice-start(%h, %i, %i)"],
            "from-host",
            32,
        ),
        (
            [
                f"%c = (({HOST}, {ROW}, s32[], s32[]), {HOST}, u32[]) "
                "dynamic-update-slice-start(%h, %r, %i, %i)"
            ],
            "to-host",
            32,
        ),
        ([f"%c = {ROW} dynamic-slice(%h, %i, %i)"], "from-host", 32),
        ([f"%c = ({CHIP}, {CHIP}, u32[]{{:S(2)}}) copy-start(%x)"], None, 0),
        ([f"%c = {CHIP} dynamic-update-slice(%x, %r, %i, %i)"], None, 0),
    ],
)
def test_copies_to_and_from_the_host(lines, kind, size):
    text = entry(
        f"%h = {HOST} parameter(0)",
        f"%x = {CHIP} parameter(1)",
        f"%r = {ROW} parameter(2)",
        "%i = s32[] constant(0)",
        *lines,
    )
    traffic = read_traffic(text)
    assert traffic.host_bytes == size
    assert [found.kind for found in traffic.transfers] == ([kind] if kind else [])
