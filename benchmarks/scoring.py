"""Is an answer right?"""

FINAL_PUNCTUATION = ".!?"


def is_correct(said: str, answer: str) -> bool:
    """Compares two answers; case, white space and final punctuation do not count.

    For questions of a closed grammar (`data_pipelines.synthetic_events`) an exact match is the
    right score. Every question has one right sentence, and the model was taught to answer with the
    sentences of that grammar and no others, so a right answer in other words does not arise. A
    laxer score would only add errors: with "contains the right word", a model that lists every
    colour is always right, and "One red star. Two blue stars." is right about both counts. Strict
    on what is said and lax on how it is typed, the score is a pure function of two strings that
    needs no judge and gives the same number everywhere.

    Open answers of real models need another score (option letters, or a judge), not a laxer one.
    """
    return _fold(said) == _fold(answer)


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(FINAL_PUNCTUATION + " ")
