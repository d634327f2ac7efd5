"""Which frames each answer of a pair is made from.

The chosen answer sees the segment (localized) or the dense frames of the whole video
(comprehensive). What the rejected one sees is a negative, by name, in the table `NEGATIVES`. All
are positions among the stored frames of one video.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.sampling import inside, outside, spread


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Frames shown for the chosen and the rejected answer, and what the difference is called.

    `made_with` has what the rejected side's frames were drawn with.
    """

    negative: str
    chosen: np.ndarray
    rejected: np.ndarray
    made_with: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NegativeConfig:
    """How rejected answers come about.

    Attributes:
      localized: shares of negatives by name for questions about a segment; any positive numbers.
      comprehensive: the same for questions about the whole video.
      sparse_pick: for `incomplete`, frames "even" over the chosen ones or at "random".
      sparse_ratio: for `incomplete`, this part of the chosen frames, instead of the number in
        `curate.sparse_frames`.
      runs: for `drop`, `shuffle` and `reverse`, into how many equal runs the chosen frames are cut.
    """

    localized: Mapping[str, float] = field(default_factory=lambda: {"irrelevant": 1.0})
    comprehensive: Mapping[str, float] = field(default_factory=lambda: {"incomplete": 1.0})
    sparse_pick: Literal["even", "random"] = "even"
    sparse_ratio: float | None = None
    runs: int = 8

    def __post_init__(self) -> None:
        for granularity in ("localized", "comprehensive"):
            key, shares = f"curate.negatives.{granularity}", getattr(self, granularity)
            for name, share in shares.items():
                if name not in NEGATIVES:
                    raise InputError(f"{key}.{name}: must be one of {', '.join(NEGATIVES)}")
                if not share >= 0:
                    raise InputError(f"{key}.{name} is {share}; must be 0 or more")
            if not sum(shares.values()) > 0:
                raise InputError(f"{key}: no negative has a share; give one a positive number")
        if self.comprehensive.get("irrelevant"):
            raise InputError(
                "curate.negatives.comprehensive.irrelevant: a question about the whole video has "
                "no frames that it is not about; leave it out"
            )
        if self.sparse_ratio is not None and not 0 < self.sparse_ratio < 1:
            raise InputError(
                f"curate.negatives.sparse_ratio is {self.sparse_ratio}; must be between 0 and 1"
            )
        if self.runs < 2:
            raise InputError(f"curate.negatives.runs is {self.runs}; must be 2 or more")

    def draw(self, granularity: str, rng: np.random.Generator) -> str:
        """A negative's name, by the shares."""
        shares = self.localized if granularity == "localized" else self.comprehensive
        weights = np.array(list(shares.values()), np.float64)
        return str(list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))])


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a negative is made out of.

    Attributes:
      times_F: seconds of the stored frames, float [F].
      segment: seconds of what is asked about; None for the whole video.
      chosen: positions that the chosen answer sees.
      sparse: frames of `incomplete`, by number.
    """

    times_F: np.ndarray
    segment: tuple[float, float] | None
    chosen: np.ndarray
    sparse: int


Rejected = tuple[np.ndarray, dict[str, Any]]
MakeNegative = Callable[[Scene, NegativeConfig, np.random.Generator], Rejected]


def irrelevant(
    times_F: np.ndarray, segment: tuple[float, float], frames: int, margin: float
) -> Sides | None:
    """The segment against the rest of the video, at least `margin` seconds away from it.

    The margin keeps an event that runs over the segment's end out of the rejected side. None if
    either side has no frame.
    """
    start, end = segment
    seen = spread_or_empty(inside(times_F, start, end), frames)
    unseen = spread_or_empty(outside(times_F, start - margin, end + margin), frames)
    if not len(seen) or not len(unseen):
        return None
    return Sides(negative="irrelevant", chosen=seen, rejected=unseen)


def incomplete(stored: int, dense: int, sparse: int) -> Sides:
    """`dense` frames over the whole video against `sparse` of those."""
    seen = spread(np.arange(stored), dense)
    return Sides(negative="incomplete", chosen=seen, rejected=spread(seen, sparse))


def spread_or_empty(positions: np.ndarray, count: int) -> np.ndarray:
    """`count` of the positions, evenly; none of none."""
    return spread(positions, count) if len(positions) else positions


def make_sides(name: str, scene: Scene, config: NegativeConfig, seed: int) -> Sides | str:
    """Both sides of a pair with the negative of this name, or why there are none."""
    rng = np.random.default_rng([seed, 1])
    rejected, made_with = NEGATIVES[name](scene, config, rng)
    if not len(rejected):
        return "the video has no frame away from the segment"
    if np.array_equal(rejected, scene.chosen):
        return f"{len(scene.chosen)} frames are too few to make another side of"
    return Sides(
        negative=name,
        chosen=scene.chosen,
        rejected=rejected,
        made_with={"seed": seed, **made_with},
    )


def _irrelevant(scene: Scene, config: NegativeConfig, rng: np.random.Generator) -> Rejected:
    assert scene.segment is not None
    margin = scene.segment[1] - scene.segment[0]
    sides = irrelevant(scene.times_F, scene.segment, len(scene.chosen), margin)
    return (sides.rejected if sides else np.zeros(0, np.int64)), {"margin_seconds": margin}


def _incomplete(scene: Scene, config: NegativeConfig, rng: np.random.Generator) -> Rejected:
    count = scene.sparse
    if config.sparse_ratio is not None:
        # At least one, and one less than all.
        count = round(config.sparse_ratio * len(scene.chosen))
        count = max(1, min(count, len(scene.chosen) - 1))
    made_with = {"pick": config.sparse_pick, "frames": count}
    if config.sparse_pick == "even" or count >= len(scene.chosen):
        return spread(scene.chosen, count), made_with
    picked = rng.choice(len(scene.chosen), size=count, replace=False)
    return scene.chosen[np.sort(picked)], made_with


def _drop(scene: Scene, config: NegativeConfig, rng: np.random.Generator) -> Rejected:
    """Half of the runs, at random, are left out."""
    runs = _runs(scene, config)
    kept = np.sort(rng.choice(len(runs), size=(len(runs) + 1) // 2, replace=False))
    return np.concatenate([runs[number] for number in kept]), {"runs": len(runs)}


def _shuffle(scene: Scene, config: NegativeConfig, rng: np.random.Generator) -> Rejected:
    """The runs in another order, each as it was inside."""
    runs = _runs(scene, config)
    order = np.arange(len(runs))
    while len(runs) > 1 and np.array_equal(order, np.arange(len(runs))):
        order = rng.permutation(len(runs))
    return np.concatenate([runs[number] for number in order]), {"runs": len(runs)}


def _reverse(scene: Scene, config: NegativeConfig, rng: np.random.Generator) -> Rejected:
    """The last run first, each as it was inside."""
    runs = _runs(scene, config)
    return np.concatenate(runs[::-1]), {"runs": len(runs)}


def _runs(scene: Scene, config: NegativeConfig) -> list[np.ndarray]:
    return np.array_split(scene.chosen, min(config.runs, len(scene.chosen)))


NEGATIVES: dict[str, MakeNegative] = {
    "irrelevant": _irrelevant,
    "incomplete": _incomplete,
    "drop": _drop,
    "shuffle": _shuffle,
    "reverse": _reverse,
}
