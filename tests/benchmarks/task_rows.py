"""Rows in the columns and types in which benchmarks are published, replies, and subtitle files.

All is drawn by chance from a seed, so that what other programs make of the same rows can be kept as
results alone (`task_cases.json`). Whoever changes what is drawn here has to make that file again.
"""

import random
from typing import Any

Row = dict[str, Any]

WORDS = "red blue ring star man cat table runs falls open A big door No. yes, the".split()
DURATIONS = ("short", "medium", "long")
DOMAINS = ("Knowledge", "Film & Television", "Life Record")
SUB_CATEGORIES = ("Geography", "Movie & TV Show", "Travel")
TASK_TYPES = ("Counting Problem", "Action Reasoning", "OCR Problems")
MLVU_TYPES = ("anomaly_reco", "count", "ego", "needle", "order", "plotQA", "topic_reasoning")
LVB_CATEGORIES = ("S2E", "T3O", "SOS", "E3E")
DIMS = ("action", "speed", "direction", "order", "attribute_change")
REPLY_PARTS = [
    *("A", "B", "C", "D", "E", "a", "c", "A.", "(B)", "C:", "D)", "(D", "B,", '"A"', "1,5", "2.5"),
    *("The best answer is", "The answer", "Best option: (", "Answer:", "I think it is", "option"),
    *("Because", "of", "the", "man", "is", "red", "Both", "and", "yes", "No", "not", "", "\n", "!"),
    *(
        "Caption A",
        "Sentence B",
        "Option C",
        "no.",
        "Yes,",
        "答案是",
        "it-self",
        "a/b",
        "[x]",
        "\t",
    ),
]


def words(rng: random.Random, most: int = 6) -> str:
    """One to `most` words."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def reply(rng: random.Random) -> str:
    """What a model may say: a letter in some form, with more around it or less, or none."""
    if rng.random() < 0.35:
        letter = rng.choice("ABCDE")
        return rng.choice(["{}", "{}.", "({})", "{}) it", "{}. a ring", "Best option: ({}"]).format(
            letter
        )
    parts = rng.choices(REPLY_PARTS, k=rng.randint(1, 12))
    return rng.choice(["", " "]).join(parts) if rng.random() < 0.3 else " ".join(parts)


def video_mme(rng: random.Random, number: int) -> Row:
    """A row of lmms-eval/Video-MME; three rows a video."""
    return {
        "video_id": f"{number // 3:03d}",
        "duration": DURATIONS[number // 3 % 3],
        "domain": rng.choice(DOMAINS),
        "sub_category": rng.choice(SUB_CATEGORIES),
        "url": f"https://www.youtube.com/watch?v=v{number // 3}",
        "videoID": f"v{number // 3}",
        "question_id": f"{number // 3:03d}-{number % 3 + 1}",
        "task_type": rng.choice(TASK_TYPES),
        "question": f"{words(rng)}?",
        "options": [f"{letter}. {words(rng)}" for letter in "ABCD"],
        "answer": rng.choice("ABCD"),
    }


def srt(rng: random.Random, seconds: float) -> str:
    """A subtitle file: most blocks in the markup of the data set, some without, some twice."""
    blocks, at = [], rng.random() * 3
    for number in range(1, rng.randint(2, 120)):
        end = at + rng.choice([0.3, 1.0, 2.5, 6.0])
        text = words(rng)
        if rng.random() < 0.85:
            text = f'<font color="white" size=".72c">{text}</font>'
        if rng.random() < 0.1:
            text += f'\n<font color="white" size=".72c">{words(rng)}</font>'
        blocks.append(f"{number}\n{_srt_time(at)} --> {_srt_time(end)}\n{text}")
        if rng.random() < 0.05:
            blocks.append(f"{number}\n{_srt_time(at)} --> {_srt_time(end)}\n{words(rng)}")
        at = end + rng.choice([0.0, 0.0, 0.4, seconds / 60])
    return "\n\n".join(blocks) + rng.choice(["", "\n", "\n\n"])


def _srt_time(seconds: float) -> str:
    whole = int(seconds)
    return (
        f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},"
        f"{int(seconds * 1000) % 1000:03d}"
    )


def longvideobench(rng: random.Random, number: int) -> Row:
    """A row of longvideobench/LongVideoBench; "N/A" fills the options up to five."""
    count = rng.randint(2, 5)
    duration = rng.choice([3.5, 9.0, 15.87, 16.0, 47.3, 600.25, 3480.1])
    return {
        "video_id": f"v{number // 2}",
        "question": f"{words(rng)}?",
        "question_wo_referring_query": f"{words(rng)}?",
        "correct_choice": rng.randrange(count),
        **{f"option{i}": words(rng) if i < count else "N/A" for i in range(5)},
        "id": f"v{number // 2}_{number % 2}",
        "video_path": f"v{number // 2}.mp4",
        "subtitle_path": f"v{number // 2}_en.json",
        "topic_category": "NP-News-Programs",
        "question_category": rng.choice(LVB_CATEGORIES),
        "duration_group": rng.choice([15, 60, 600, 3600]),
        "starting_timestamp_for_subtitles": rng.choice([0, 0, 12.5, 100]),
        "duration": duration,
        "view_count": 17,
    }


def longvideobench_subtitles(rng: random.Random, row: Row) -> list[Row]:
    """A subtitle file of one of the two forms."""
    found: list[Row] = []
    clock = rng.random() < 0.4
    at = float(row["starting_timestamp_for_subtitles"]) + rng.random()
    for _ in range(rng.randint(0, 40)):
        end: Any = round(at + rng.choice([0.2, 0.8, 1.5, 4.0]), 2)
        if clock:
            found.append({"start": _clock(at), "end": _clock(end), "line": words(rng)})
        else:
            told = rng.choice([end] * 8 + [None, int(end) + 1])
            found.append({"timestamp": [round(at, 2), told], "text": words(rng)})
        at = end + rng.choice([0.0, 0.5, row["duration"] / 30])
    return found


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600:02d}:{int(seconds) // 60 % 60:02d}:{seconds % 60:.3f}"


def mlvu(rng: random.Random, number: int) -> Row:
    """A row of sy1998/MLVU_dev."""
    options = "\n".join(f"({letter}) {words(rng)}" for letter in "ABCD")
    return {
        "video_name": f"video_{number // 2}.mp4",
        "duration": 321.5,
        "question": f"{words(rng)}?\n{options}",
        "candidates": words(rng),
        "answer": rng.choice("ABCD"),
        "task_type": MLVU_TYPES[number % 7] if number < 7 else rng.choice(MLVU_TYPES),
    }


def mvbench(rng: random.Random, number: int) -> Row:
    """A row of one of OpenGVLab/MVBench's files."""
    candidates = [f"{words(rng)} {i}" for i in range(rng.randint(2, 5))]
    return {
        "video": f"clip_{number}.mp4",
        "question": f"{words(rng)}?",
        "candidates": candidates,
        "answer": rng.choice(candidates),
    }


def tempcompass(rng: random.Random, part: str, number: int) -> Row:
    """A row of one of lmms-eval/TempCompass' tables."""
    name = rng.choice(["Caption", "Sentence", "Option"])
    lines = [f"{letter}. {words(rng)}" for letter in "ABCD"]
    question = f"{words(rng)}?\n" + "\n".join(lines)
    answer = rng.choice(lines)
    if part == "yes_no":
        question, answer = f"{words(rng)}?", rng.choice(["yes", "no"])
    if part == "caption_matching":
        lines = [f"{name} {letter}: {words(rng)}" for letter in "AB"]
        question, answer = "Which fits?\n" + "\n".join(lines), rng.choice(lines)
    return {
        "video_id": str(1000 + number),
        "question": question,
        "answer": answer,
        "dim": rng.choice(DIMS),
    }


def tempcompass_reply(rng: random.Random, row: Row) -> str:
    """One that the rules know more often than any."""
    line = rng.choice([*row["question"].split("\n"), row["answer"]])
    forms = [
        *(line, line.split(": ")[-1], line.split(": ")[0], f"{line.split(': ')[0]}."),
        *(line.split(": ")[0].split()[-1], f"(A) {line.split(': ')[-1]}", "Yes", "no, it is", "B"),
    ]
    return reply(rng) if rng.random() < 0.3 else rng.choice(forms)


def nextqa(rng: random.Random, number: int) -> Row:
    """A row of NExT-GQA's test.csv; all of it is text."""
    options = [f"{words(rng)} {i}" for i in range(5)]
    return {
        "video_id": str(2_400_000_000 + number // 3),
        "frame_count": "719",
        "width": "320",
        "height": "240",
        "question": words(rng, 9),
        "answer": rng.choice(options),
        "qid": str(number % 3),
        "type": rng.choice(["TN", "TC", "CW", "CH"]),
        **{f"a{i}": option for i, option in enumerate(options)},
    }


def spans(rng: random.Random, duration: int) -> list[list[float]]:
    """True spans of a question, seconds to a tenth."""
    cuts = sorted(rng.sample(range(duration * 10), 2 * rng.randint(1, 3)))
    return [[a / 10, b / 10] for a, b in zip(cuts[::2], cuts[1::2], strict=True)]


def told_span(rng: random.Random, duration: int) -> tuple[float, float] | None:
    """What a model told; sometimes nothing, or a moment."""
    if rng.random() < 0.15:
        return None
    a, b = sorted(rng.randrange(duration * 10) / 10 for _ in range(2))
    return (a, a) if rng.random() < 0.1 else (a, b)


def videohallucer(rng: random.Random, number: int) -> Row:
    """A row of one of ColorfulAI/VideoHallucer's files."""
    return {
        side: {
            "video": f"{number}{'b' if side == 'hallucination' and number % 4 == 0 else ''}.mp4",
            "question": f"Is there {words(rng)}?",
            "answer": answer,
        }
        for side, answer in (("basic", "yes"), ("hallucination", "no"))
    } | {"type": "subject"}


def yes_no_reply(rng: random.Random) -> str:
    """A yes or no, both, neither, or a word that only begins so."""
    forms = [
        "yes",
        "No.",
        "Yes, there is",
        "no, yes",
        "nothing",
        "It is. YES!",
        "eyes",
        "I know",
        "",
    ]
    return rng.choice(forms)
