"""How far a told span of time and the true ones overlap, as NExT-GQA's eval_ground.py counts."""

from collections.abc import Mapping, Sequence

Span = tuple[float, float]  # seconds from and to
MARKS = (0.3, 0.5)


def overlap(gold: Sequence[Span], told: Span) -> tuple[float, float]:
    """The best IoU and the best IoP of a span with any of the true ones, each for itself, 0 to 1.

    IoU is the part they share of what both cover, with all between them; IoP that of the told span.
    A told span without length has IoU 0, and IoP 1 where it lies inside.
    """
    pairs = [_overlap(one, told) for one in gold]
    # Spans apart have a negative overlap, which counts as none.
    return max([0.0, *(iou for iou, _ in pairs)]), max([0.0, *(iop for _, iop in pairs)])


def _overlap(gold: Span, told: Span) -> tuple[float, float]:
    if told[0] == told[1]:
        return 0.0, float(gold[0] <= told[0] <= gold[1])
    shared = min(gold[1], told[1]) - max(gold[0], told[0])
    hull = max(gold[1], told[1]) - min(gold[0], told[0])
    length = told[1] - told[0]
    return (shared / hull if hull > 0 else 0.0), (shared / length if length > 0 else 0.0)


def overlap_summary(
    gold: Mapping[str, Sequence[Span]],
    told: Mapping[str, Span],
    right: Mapping[str, bool],
    *,
    missing_is_zero: bool,
) -> dict[str, float]:
    """Means over questions, 0 to 100.

    Args:
      gold: question -> true spans.
      told: question -> the span a model told; questions may be missing.
      right: question -> its answer was right.
      missing_is_zero: a question without a span counts as 0; otherwise it is left out.

    Returns:
      acc_gqa (answer right, and IoP at least 0.5), mIoP, IoP@0.3, IoP@0.5, mIoU, IoU@0.3, IoU@0.5.
    """
    asked = [name for name in gold if missing_is_zero or name in told]
    found = {name: overlap(gold[name], told[name]) for name in asked if name in told}
    count = max(len(asked), 1)
    metrics: dict[str, float] = {
        "acc_gqa": sum(right.get(name, False) and iop >= 0.5 for name, (_, iop) in found.items())
    }
    for kind, values in (
        ("IoP", [iop for _, iop in found.values()]),
        ("IoU", [iou for iou, _ in found.values()]),
    ):
        metrics[f"m{kind}"] = sum(values)
        metrics |= {f"{kind}@{mark}": sum(value >= mark for value in values) for mark in MARKS}
    return {name: 100 * value / count for name, value in metrics.items()}
