"""Several files of pairs as one: what is taken of each, and how often it comes in an epoch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from data_pipelines.errors import InputError
from data_pipelines.pairs import Pair, read_pairs

SOURCE = re.compile(
    r"(?P<path>.+?)(:(?P<how>first|random):(?P<count>[\d.]+)(?P<percent>%?))?"
    r"(\*(?P<weight>\d+(\.\d+)?))?"
)
How = Literal["all", "first", "random"]
FORM = "write PATH, PATH:first:N, PATH:random:N or PATH:random:P%, and *WEIGHT behind it if not 1"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file of a mixture.

    Attributes:
      path: of the pairs.
      how: which are taken: "all", the "first" ones, or ones at "random".
      count: how many; of 100 if `percent`.
      weight: how often each comes in an epoch. Of 2.5, every pair comes twice, and a random half of
        them once more.
    """

    path: Path
    how: How = "all"
    count: float = 0
    percent: bool = False
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Source":
        """From `PATH[:first:N|:random:N][%][*WEIGHT]`. Raises InputError if it is none."""
        found = SOURCE.fullmatch(text.strip())
        if found is None:
            raise InputError(f"config.mixture: {text!r}: {FORM}")
        parts = found.groupdict()
        try:
            source = cls(
                path=Path(parts["path"]),
                how=cast(How, parts["how"] or "all"),
                count=float(parts["count"] or 0),
                percent=bool(parts["percent"]),
                weight=float(parts["weight"] or 1),
            )
        except ValueError as error:
            raise InputError(f"config.mixture: {text!r}: {FORM}") from error
        whole = source.percent or source.count == int(source.count)
        if source.how != "all" and not (source.count > 0 and whole) or source.weight <= 0:
            raise InputError(f"config.mixture: {text!r}: counts and weights are above 0; {FORM}")
        return source

    def choose(self, pairs: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Which of so many pairs are taken, ascending.

        Raises:
          InputError: there are not as many.
        """
        if self.how == "all":
            return np.arange(pairs)
        count = round(pairs * self.count / 100) if self.percent else int(self.count)
        if count > pairs:
            raise InputError(f"config.mixture: {self.path} has {pairs} pairs, not {count}")
        if self.how == "first":
            return np.arange(count)
        return np.sort(rng.permutation(pairs)[:count])

    def repeat(
        self, numbers: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Every number as often as it comes in an epoch."""
        whole, part = divmod(self.weight, 1)
        more = rng.permutation(len(numbers))[: round(part * len(numbers))]
        return np.concatenate([np.tile(numbers, int(whole)), np.sort(numbers[more])])


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """The pairs of all sources, and their numbers int64 in an epoch, some several times."""

    pairs: list[Pair]
    numbers: npt.NDArray[np.int64]


def read_mixture(sources: Sequence[str], *, seed: int) -> Mixture:
    """Reads the pairs of sources as `Source.parse` has them.

    Raises:
      InputError: a source is not written so, a file is bad, or two pairs share an id; names both.
    """
    pairs: list[Pair] = []
    numbers = []
    seen: dict[str, Path] = {}
    for place, text in enumerate(sources):
        source = Source.parse(text)
        rng = np.random.default_rng([seed, place])
        found = read_pairs(source.path)
        taken = [found[number] for number in source.choose(len(found), rng)]
        for pair in taken:
            if pair.id in seen:
                raise InputError(
                    f"{source.path}: the pair {pair.id!r} is in {seen[pair.id]} too; a weight "
                    "makes pairs come more often"
                )
        seen |= {pair.id: source.path for pair in taken}
        numbers.append(source.repeat(np.arange(len(taken)) + len(pairs), rng))
        pairs.extend(taken)
    return Mixture(pairs=pairs, numbers=np.concatenate(numbers))
