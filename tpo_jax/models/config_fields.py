"""Reading the fields of a config.json: what is wrong is said in one line that names the field."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json import dumps
from typing import Any

from tpo_jax.errors import InputError, did_you_mean

Json = Mapping[str, Any]


def words(text: str) -> frozenset[str]:
    """The words of a text, as names of fields."""
    return frozenset(text.split())


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The known fields of an object in a config.json.

    Attributes:
      read: become settings; whoever reads them checks their values.
      implemented: change what is computed, and only these values are implemented.
      without_effect: training flags, image-only paths, tokenizer and library settings.
      defaults: what a missing field means to the program that wrote the file.
    """

    read: frozenset[str]
    implemented: Mapping[str, tuple[Any, ...]]
    without_effect: frozenset[str]
    defaults: Json

    def fill(self, json: Json, where: str = "") -> dict[str, Any]:
        """The object with its defaults. `where` leads a field's name in messages.

        Raises:
          InputError: a field is unknown, or has a value that is not implemented, also where that
            value is only the default of a missing one.
        """
        filled = {**self.defaults, **json}
        for key in filled:
            if key in self.implemented:
                one_of(filled, key, self.implemented[key], where, given=key in json)
            elif key not in self.read and key not in self.without_effect:
                known = [*self.read, *self.implemented, *self.without_effect]
                raise InputError(f"{where}{key} is not a known field{did_you_mean(key, known)}")
        return filled


def required(json: Json, key: str, where: str = "") -> Any:
    """The value of a field. InputError if it is missing."""
    if key not in json:
        raise InputError(f"{where}{key} is missing")
    return json[key]


def one_of(
    json: Json, key: str, values: Iterable[Any], where: str = "", *, given: bool = True
) -> Any:
    """The value of a field, if it is one of `values`; `given` is False for a default."""
    value = required(json, key, where)
    known = list(values)
    # In Python True equals 1, in JSON it does not.
    if not any(v == value and isinstance(v, bool) == isinstance(value, bool) for v in known):
        listed = ", ".join(dumps(other) for other in known)
        verb = "is" if len(known) == 1 else "are"
        found = f"is {dumps(value)}" if given else f"is missing, which means {dumps(value)}"
        raise InputError(f"{where}{key} {found}; only {listed} {verb} implemented")
    return value


def whole_number(json: Json, key: str, where: str = "") -> int:
    """The value of a field that counts something, 1 or more."""
    value = required(json, key, where)
    if type(value) is not int or value < 1:
        raise InputError(f"{where}{key} is {dumps(value)}; it must be a whole number above 0")
    return value


def real_number(json: Json, key: str, where: str = "") -> float:
    """The value of a field that measures something, above 0."""
    value = required(json, key, where)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise InputError(f"{where}{key} is {dumps(value)}; it must be a number above 0")
    return float(value)


def json_object(json: Json, key: str, where: str = "") -> Json:
    """The value of a field that holds fields of its own."""
    value = required(json, key, where)
    if not isinstance(value, Mapping):
        raise InputError(f"{where}{key} is {dumps(value)}; it must be an object")
    return value


def layers_until(json: Json, key: str, stored: int) -> int:
    """How many of `stored` layers are run for the hidden state of the index in a field.

    Hidden state 0 is what enters the first layer; negative indices count from the last one.
    """
    index = required(json, key)
    used = -1
    if type(index) is int:
        used = index if index >= 0 else stored + 1 + index
    if not 1 <= used <= stored:
        raise InputError(
            f"{key} is {dumps(index)}; it must be one whole number that names a hidden state "
            f"after one of the tower's {stored} layers"
        )
    return used


def check_divides(name: str, number: int, by_name: str, by: int) -> None:
    """InputError unless `number` is a multiple of `by`."""
    if number % by:
        raise InputError(f"{name} {number} is not a multiple of {by_name} {by}")
