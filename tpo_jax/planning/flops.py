"""FLOPs of one pair, counted from the model's shapes; a multiply-add is 2.

The compiler cannot be asked: it counts the body of a loop once, and a kernel not at all. Only
matrix products count: norms, activations, softmax, pooling and the loss are about 1% at 7B.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tpo_jax.models.language import LanguageConfig
from tpo_jax.models.video_lmm import VideoLMMConfig

PARTS = ("tower", "projector", "decoder", "attention", "head")
NOTHING: Mapping[str, float] = dict.fromkeys(PARTS, 0.0)


@dataclass(frozen=True, kw_only=True)
class RowDims:
    """Places of a row, padding counted, as it is computed too.

    Attributes:
      prompt: places of the prompt, its visual tokens among them.
      answer: places of each answer.
      answers: how many there are: 2 for a pair.
      frames: encoded for the row.
      prompt_targets: supervised places inside the prompt.
    """

    prompt: int
    answer: int
    answers: int = 2
    frames: int
    prompt_targets: int = 0

    @property
    def tokens(self) -> int:
        """All places."""
        return self.prompt + self.answers * self.answer

    @property
    def scored(self) -> int:
        """Places whose state goes through the head."""
        return self.prompt_targets + self.answers * self.answer

    @property
    def seen_pairs(self) -> int:
        """(query, key) pairs that the mask allows: not later, in the prompt or the same answer."""
        prompt, answer = self.prompt, self.answer
        own = prompt * (prompt + 1) // 2
        return own + self.answers * (answer * prompt + answer * (answer + 1) // 2)


@dataclass(frozen=True, kw_only=True)
class Recompute:
    """How many times a step computes a product of the forward pass again to go backward.

    Attributes:
      qkv, out, gate_up, down: the products of a decoder layer.
      attention: the attention of a decoder layer, forward.
      kernel: what the attention's backward itself computes again, in forward passes of attention.
        Backward are four products of the size of the forward's two. A kernel that does not keep
        the scores computes them again (0.5); splash with a kernel of its own for dq does so twice,
        and one of the four too (1.5). Written-out attention keeps them (0).
      head: the scores over the vocabulary, which are taken in chunks and never kept.
      tower: the whole vision tower, where it is trained.
    """

    qkv: float = 0.0
    out: float = 0.0
    gate_up: float = 0.0
    down: float = 0.0
    attention: float = 0.0
    kernel: float = 1.5
    head: float = 1.0
    tower: float = 0.0


# A layer computed again stops before the last product: its result is added to the residual stream,
# and no gradient needs it.
RECOMPUTE: Mapping[str, Recompute] = {
    "none": Recompute(),
    "full": Recompute(qkv=1, out=1, gate_up=1, attention=1),
    "attention": Recompute(qkv=1, out=1, gate_up=1),
    "offload": Recompute(qkv=1, out=1, gate_up=1, attention=1),
}


@dataclass(frozen=True, kw_only=True)
class Flops:
    """FLOPs by part ("tower", "projector", "decoder", "attention", "head").

    "decoder" is its matrix products without attention's scores, "attention" those of the decoder.
    """

    forward: Mapping[str, float]
    backward: Mapping[str, float]
    recompute: Mapping[str, float]

    @property
    def by_part(self) -> dict[str, float]:
        """All that is computed."""
        return {
            part: self.forward[part] + self.backward[part] + self.recompute[part] for part in PARTS
        }

    @property
    def model_flops(self) -> float:
        """What the work needs, nothing computed twice: the measure of utilisation."""
        return sum(self.forward.values()) + sum(self.backward.values())

    @property
    def hardware_flops(self) -> float:
        """What the chips compute."""
        return self.model_flops + sum(self.recompute.values())

    def scaled(self, factor: float) -> "Flops":
        """So many times as many."""

        def times(parts: Mapping[str, float]) -> dict[str, float]:
            return {part: factor * value for part, value in parts.items()}

        return Flops(
            forward=times(self.forward),
            backward=times(self.backward),
            recompute=times(self.recompute),
        )

    def __add__(self, other: "Flops") -> "Flops":
        def add(mine: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
            return {part: mine[part] + theirs[part] for part in PARTS}

        return Flops(
            forward=add(self.forward, other.forward),
            backward=add(self.backward, other.backward),
            recompute=add(self.recompute, other.recompute),
        )


def row_flops(
    config: VideoLMMConfig,
    row: RowDims,
    *,
    trained: frozenset[str],
    recompute: Recompute | str = "full",
) -> Flops:
    """FLOPs of one row in a training step, or in a forward pass if nothing is trained.

    Args:
      config: the model.
      row: its places and frames.
      trained: top-level parts of the parameters with a gradient, of "vision", "projector",
        "newline" and "language". Parts before all of these have no backward.
      recompute: what is computed twice, or a name in RECOMPUTE.
    """
    again = RECOMPUTE[recompute] if isinstance(recompute, str) else recompute
    vision, projector = "vision" in trained, "projector" in trained
    language, anything = "language" in trained, bool(trained)
    before_language = bool(trained & {"vision", "projector", "newline"})

    patch, layers, scores = tower_products(config)
    first, second = projector_products(config)
    linear = layer_products(config.language)
    tokens = config.language.layers * row.tokens
    decoder = tokens * sum(linear.values())
    attention = attention_flops(config.language, row.seen_pairs)
    head = 2.0 * row.scored * config.language.width * config.language.table_rows

    forward = {
        "tower": row.frames * (patch + layers + scores),
        "projector": row.frames * (first + second),
        "decoder": decoder,
        "attention": attention,
        "head": head,
    }
    # Gradients of weights, then of inputs. The embedding lies before all layers of the decoder.
    into_projector = row.frames * (first * vision + second * (projector or vision))
    backward = {
        "tower": row.frames * (patch + 2 * layers + 2 * scores) * vision,
        "projector": row.frames * (first + second) * projector + into_projector,
        "decoder": decoder * (language + (language or before_language)),
        "attention": 2 * attention * anything,
        "head": head * (language + anything),
    }
    twice = {
        "tower": again.tower * forward["tower"] * vision,
        # Its hidden layer is never kept (`VideoLMM.encode_frames`).
        "projector": row.frames * first * bool(trained & {"vision", "projector", "newline"}),
        "decoder": tokens * sum(getattr(again, name) * cost for name, cost in linear.items()),
        "attention": (again.attention + again.kernel) * attention,
        "head": again.head * head,
    }
    return Flops(forward=forward, backward=backward, recompute=twice if anything else dict(NOTHING))


def two_row_flops(
    config: VideoLMMConfig,
    row: RowDims,
    *,
    trained: frozenset[str],
    recompute: Recompute | str = "full",
    share_tower: bool = False,
) -> Flops:
    """FLOPs of the same pair as one plain row an answer, prompt and frames in each.

    With `share_tower` the frames go through tower and projector once for both.
    """
    alone = RowDims(
        prompt=row.prompt,
        answer=row.answer,
        answers=1,
        frames=row.frames,
        prompt_targets=row.prompt_targets,
    )
    unseen = RowDims(
        prompt=row.prompt,
        answer=row.answer,
        answers=1,
        frames=0,
        prompt_targets=row.prompt_targets,
    )
    rest = row_flops(
        config, unseen if share_tower else alone, trained=trained, recompute=recompute
    ).scaled(row.answers - 1)
    return row_flops(config, alone, trained=trained, recompute=recompute) + rest


def tower_products(config: VideoLMMConfig) -> tuple[float, float, float]:
    """Forward FLOPs of one frame: of the patches' embedding, the layers, and their attention."""
    vision = config.vision
    patches = vision.side**2
    places = patches + int(vision.class_token)
    layer = 2 * places * (4 * vision.width**2 + 2 * vision.width * vision.mlp_width)
    scores = 4 * places**2 * vision.width
    return (
        2.0 * patches * 3 * vision.patch_size**2 * vision.width,
        float(vision.layers_used * layer),
        float(vision.layers_used * scores),
    )


def projector_products(config: VideoLMMConfig) -> tuple[float, float]:
    """Forward FLOPs of one frame in the first and the second matrix; every patch goes through."""
    patches, width = config.vision.side**2, config.language.width
    return 2.0 * patches * config.vision.width * width, 2.0 * patches * width**2


def layer_products(config: LanguageConfig) -> dict[str, float]:
    """Forward FLOPs of one token in the products of one decoder layer."""
    queries = config.heads * config.head_width
    keys = config.kv_heads * config.head_width
    return {
        "qkv": 2.0 * config.width * (queries + 2 * keys),
        "out": 2.0 * queries * config.width,
        "gate_up": 4.0 * config.width * config.mlp_width,
        "down": 2.0 * config.mlp_width * config.width,
    }


def attention_flops(config: LanguageConfig, pairs: int) -> float:
    """Forward FLOPs of attention in all layers over so many (query, key) pairs a head."""
    return 4.0 * config.layers * pairs * config.heads * config.head_width
