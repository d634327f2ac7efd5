"""Ways of training ("arms") compared on the same questions, each trained with several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.runner import Record
from benchmarks.statistics import Interval, crossed_interval
from benchmarks.tasks.item import Item
from data_pipelines.errors import InputError

Groups = dict[str, npt.NDArray[np.intp]]
# Of an arm: what each of its models said, in the order of the items. The base has one model.
Answers = Mapping[str, Sequence[Sequence[Record]]]


def right_SI(items: Sequence[Item], answers: Sequence[Sequence[Record]]) -> npt.NDArray[np.float64]:
    """1 where an answer is right, else 0: float [seeds, items].

    Raises:
      InputError: the records are not those of the items.
    """
    ids = [item.id for item in items]
    for records in answers:
        if [record.item for record in records] != ids:
            raise InputError("records and items do not belong together; run the evaluation again")
    return np.array([[record.correct for record in records] for records in answers], float)


def groups_of(items: Sequence[Item]) -> Groups:
    """Places of the items of each group: all, by granularity, by kind, by its own groups."""
    found: Groups = {"all": np.arange(len(items))}
    granularities = [item.granularity for item in items]
    for granularity in sorted(set(granularities), reverse=True):  # localized first
        found[granularity] = _places(one == granularity for one in granularities)
        for kind in dict.fromkeys(i.kind for i in items if i.granularity == granularity):
            found[kind] = _places(item.kind == kind for item in items)
    for name in dict.fromkeys(name for item in items for name in item.groups):
        for value in sorted({item.groups[name] for item in items}):
            found[f"{value} {name}"] = _places(item.groups[name] == value for item in items)
    return found


def _places(holds) -> npt.NDArray[np.intp]:  # type: ignore[no-untyped-def]
    return np.flatnonzero(np.array(list(holds)))


def bins_of(values: Sequence[float], edges: Sequence[float], unit: str) -> Groups:
    """Places of the items whose value lies between two edges, by name ("20 to 40 s")."""
    number = np.clip(np.digitize(values, edges) - 1, 0, len(edges) - 2)
    names = [f"{low:g} to {high:g}{unit}" for low, high in zip(edges, edges[1:], strict=False)]
    return {name: np.flatnonzero(number == at) for at, name in enumerate(names)}


def accuracies(
    items: Sequence[Item], answers: Answers, groups: Groups
) -> dict[str, dict[str, dict[str, float]]]:
    """arm -> group -> {value, low, high}; groups without items are left out."""
    return {
        arm: _intervals(right_SI(items, said), items, groups, (0.0, 1.0))
        for arm, said in answers.items()
    }


def difference(
    items: Sequence[Item],
    new: Sequence[Sequence[Record]],
    old: Sequence[Sequence[Record]],
    groups: Groups,
) -> dict[str, dict[str, float]]:
    """Accuracy of `new` less that of `old`, by group, on the same items and seed by seed.

    A model without seeds, like the base, is compared with every seed of the other.
    """
    values_SI = right_SI(items, new) - right_SI(items, old)
    return _intervals(values_SI, items, groups, (-1.0, 1.0))


def _intervals(
    values_SI: npt.NDArray[np.float64],
    items: Sequence[Item],
    groups: Groups,
    whole_range: tuple[float, float],
) -> dict[str, dict[str, float]]:
    def interval(places: npt.NDArray[np.intp]) -> Interval:
        videos = [items[place].video for place in places]
        return crossed_interval(values_SI[:, places], videos, whole_range=whole_range)

    return {name: asdict(interval(places)) for name, places in groups.items() if len(places)}


def chances(items: Sequence[Item], groups: Groups) -> dict[str, float]:
    """Group -> accuracy of a guesser, where every item of the group has a chance."""
    told = {name: [items[place].chance for place in places] for name, places in groups.items()}
    return {
        name: float(np.mean([one for one in chance if one is not None]))
        for name, chance in told.items()
        if chance and None not in chance
    }


def words(answers: Answers) -> dict[str, float]:
    """Mean number of words of an arm's answers."""
    return {
        arm: float(np.mean([len(record.said.split()) for records in said for record in records]))
        for arm, said in answers.items()
    }


def by_seed(items: Sequence[Item], answers: Answers) -> dict[str, list[float]]:
    """Accuracy of each model of an arm."""
    return {arm: right_SI(items, said).mean(axis=1).tolist() for arm, said in answers.items()}


def summarise_arms(
    items: Sequence[Item], answers: Answers, against: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """What a page shows of a set of answers, as plain data.

    Args:
      items: what was asked, not empty.
      answers: of every arm.
      against: (new, old) for each difference that is wanted.
    """
    groups = groups_of(items)
    return {
        "items": len(items),
        "videos": len({item.video for item in items}),
        "groups": {name: len(places) for name, places in groups.items()},
        "chance": chances(items, groups),
        "accuracy": accuracies(items, answers, groups),
        "seeds": by_seed(items, answers),
        "words": words(answers),
        "difference": {
            f"{new} - {old}": difference(items, answers[new], answers[old], groups)
            for new, old in against
        },
    }
