"""The one exception for what a user can cause and mend, and the hint for a mistyped name."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A file, key, shape or option from the user is wrong.

    The message is one line: it names the file, the key or the shape, and says how to mend it. The
    command line prints it without a traceback and exits with status 2.
    """


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Returns the choice most like `word`, or None if there are no choices.

    A dotted name whose last part is exactly that of `word` comes first: a config key that was put
    into the wrong section is found in the right one.
    """

    def likeness(choice: str) -> tuple[bool, float]:
        ends = word.rpartition(".")[2], choice.rpartition(".")[2]
        whole = difflib.SequenceMatcher(None, word, choice).ratio()
        return ends[0] == ends[1], whole + difflib.SequenceMatcher(None, *ends).ratio()

    return max(choices, key=likeness, default=None)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns "; did you mean X?" with the nearest choice, or "" if there are no choices."""
    found = nearest(word, choices)
    return f"; did you mean {found}?" if found else ""
