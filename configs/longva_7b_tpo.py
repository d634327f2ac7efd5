"""LongVA-TPO: the paper's recipe for LongVA-7B.

tpo frames --config=longva_7b_tpo --config.videos=FOLDER --config.checkpoint=FOLDER

What a value comes from stands behind it:
  paper: the TPO paper (arXiv 2501.13919), as the published notes on it agree.
  inferred: not from the paper but from the authors' training script, what it comes with, or the
    defaults of what it is built on.
  ours: chosen here; theirs is not known, or it is a matter of this program or of your machine.
"""

from ml_collections import ConfigDict, FieldReference


def get_config() -> ConfigDict:
    """Every value a verb reads."""
    run_dir = FieldReference("runs/longva_7b_tpo")  # ours
    return ConfigDict(
        {
            "run_dir": run_dir,  # ours
            "videos": "videos/web",  # ours: your own; the paper has 8,000 crawled by keyword
            "checkpoint": "checkpoints/LongVA-7B",  # paper
            "mixture": (),  # ours: files of pairs instead of those of the run
            "frames_dir": "",  # ours
            "train_dir": "",  # ours
            "seed": 0,  # ours
            "workers": 8,  # ours
            "train_frames": 32,  # paper
            "compute_dtype": "bfloat16",  # inferred
            "frames": {
                "kind": "fps",  # inferred
                "fps": 1.0,  # inferred
                "max_frames": 256,  # ours: segments are cut out of these
            },
            "prompts": {
                "time_instruction": False,  # inferred: their DPO script never adds it
                "after_video": "two_newlines",  # inferred: their DPO script
                "frame_times": "reference",  # inferred; told to nobody without the instruction
                "labels": "chatml",  # inferred: their DPO script
            },
            "sampling": {
                "max_new_tokens": 256,  # ours
                "temperature": 0.7,  # inferred: the default of the published model
            },
            "curate": {
                "captioner": "policy",  # ours: in the paper CogVLM2
                "questions": "policy",  # ours: in the paper GPT-4o-mini writes them
                "questions_file": "",  # ours: your own
                "given_chosen": "model",  # paper: preferred answers are the model's own
                "judge": "policy",  # ours: in the paper GPT-4o-mini
                "kinds": {},  # paper: its eight, in its shares
                "segments": "uniform",  # ours
                "segment_seconds": 16.0,  # ours
                "shot_change": 0.15,  # ours: not used by uniform segments
                "segment_frames": 16,  # ours
                "dense_frames": 32,  # paper
                "sparse_frames": 8,  # ours
                "negatives": {
                    "localized": {"irrelevant": 1.0},  # paper
                    "comprehensive": {"incomplete": 1.0},  # paper
                    "sparse_pick": "random",  # paper: a random part in v3, a sparse one in v1
                    "sparse_ratio": None,  # ours: the paper's is not known
                    "runs": 8,  # ours: not used by these
                },
                "comprehensive_per_video": 4,  # ours
                "pairs": 10_000,  # paper
                "localized_share": 0.5,  # paper: localized to comprehensive 5:5
                "post_filter": True,  # paper
                "texts": {
                    "inside": True,  # ours
                    "fewest": 1,  # ours
                    "most": 0,  # ours: no bound
                    "length_ratio": 0.0,  # ours: no bound
                    "repeats": 8,  # ours
                    "unfinished": True,  # ours
                },
                "endpoint": {
                    "base_url": "",  # ours: none is asked unless a role above names one
                    "model": "",  # ours
                    "key_variable": "TPO_ENDPOINT_KEY",  # ours: the key itself stands in no config
                    "temperature": 0.0,  # ours
                    "max_tokens": 512,  # ours
                    "timeout": 120.0,  # ours
                    "retries": 6,  # ours
                    "backoff": 1.0,  # ours
                    "parallel": 8,  # ours
                    "requests_per_minute": 0.0,  # ours: no bound
                    "videos_at_once": 8,  # ours
                    "image_size": 0,  # ours: frames as stored
                    "price_in": 0.0,  # ours: a million tokens
                    "price_out": 0.0,  # ours
                },
                "round": 0,  # ours
                "seed": 0,  # ours
            },
            "mesh": {
                "data": 1,  # ours
                "fsdp": -1,  # ours
                "context": 1,  # ours
                "tensor": 1,  # ours
            },
            "distributed": {
                "heartbeat_seconds": 100,  # ours: until a silent host is taken for dead
            },
            "loss": {
                "preference": "sigmoid",  # paper
                "beta": 0.3,  # paper
                "label_smoothing": None,  # inferred: none
                "length_alpha": None,  # inferred: none
                "dpo_weight": 1.0,  # paper
                "sft_weight": 0.5,  # paper: its alpha
                "sft_reduction": "pair_mean",  # inferred: their script at one pair per device
            },
            "train": {
                "steps": 0,  # ours: as many as `epochs` makes, 156
                "epochs": 1,  # paper
                "batch_pairs": 64,  # paper
                "accumulate": 1,  # ours: raise it where memory is short, the result is the same
                "save_every": 20,  # ours
                "keep_last": 2,  # ours: checkpoints
                "keep_every": None,  # ours: or those of every so many steps too
                "keep_best_by": None,  # ours: or "reward_accuracy", ...: the best by it too
                "on_nonfinite": "stop",  # ours
                "max_skipped": 5,  # ours
                "grad_norm_limit": 0.0,  # ours: any norm is good
                "wandb": "",  # ours
                "learning_rate": 4e-6,  # paper; it decays by a cosine, as in the paper
                "part_learning_rates": {},  # inferred: one rate for all
                "warmup_ratio": 0.1,  # paper
                "weight_decay": 0.0,  # inferred
                "clip_norm": 1.0,  # inferred
                "b1": 0.9,  # inferred
                "b2": 0.999,  # inferred
                "eps": 1e-8,  # inferred
                "frozen": ("vision",),  # paper: projector and language model are trained
                "remat": "full",  # ours
                "answer_buckets": (),  # ours: all answers are padded to the longest
                "max_tokens": 0,  # ours: no bound
                "loader_workers": 0,  # ours: threads
                "grace_seconds": 25.0,  # ours: spot machines give 30 s
                "xla_options": (),  # ours: of the TPU compiler, such as "xla_NAME=VALUE"
            },
            "profile": {"steps": ""},  # ours
            "eval": {
                "videos": run_dir + "/videos/heldout",  # ours: synthetic videos with known events
                "truth": run_dir + "/truth/heldout.json",  # ours
                "frames": 128,  # inferred: their evaluation script, most benchmarks
                "localized_per_video": 4,  # ours
                "comprehensive_per_video": 4,  # ours
                "seed": 0,  # ours
            },
            "export": {
                "dtype": "bfloat16",  # inferred
            },
            "arms": {"names": ("sft", "random", "tpo"), "seeds": 3},  # ours: of `tpo demo`
            "synthetic": {
                "train": 150,  # ours: only `tpo demo` makes these
                "development": 20,  # ours
                "heldout": 60,  # ours
                "events": (6, 8),  # ours
            },
        }
    )
