"""The demo: all of TPO on small synthetic videos with a tiny model, in minutes on two CPU cores."""

from ml_collections import ConfigDict, FieldReference


def get_config() -> ConfigDict:
    """Every value a verb reads."""
    run_dir = FieldReference("runs/demo")  # what is derived from it follows an override
    return ConfigDict(
        {
            "run_dir": run_dir,
            "videos": run_dir + "/videos/train",  # a folder of videos, or one video
            "checkpoint": "demo_base",  # a folder in the LLaVA layout, or what ships with tpo_jax
            "mixture": (),
            "frames_dir": "",  # a frame store that runs share, instead of run_dir/frames
            "train_dir": "",  # instead of run_dir/train; may be in a bucket: gs://...
            "seed": 0,
            "workers": 2,  # processes that decode videos
            "train_frames": 32,  # shown for both answers, uniform over the whole video
            "compute_dtype": "float32",
            # kind "fps" keeps fps frames a second, at most max_frames; "uniform" spreads max_frames
            "frames": {"kind": "fps", "fps": 2.0, "max_frames": 256},
            "prompts": {
                "time_instruction": False,
                "after_video": "newline",  # or "two_newlines", "nothing"
                "frame_times": "exact",  # or "reference": by the authors' formula
                "labels": "answer",
            },
            "sampling": {"max_new_tokens": 24, "temperature": 0.0},
            "curate": {
                "captioner": "policy",  # or "endpoint:MODEL@URL", here and below
                "questions": "rules",  # or "time", "policy", "file": see docs/curation.md
                "questions_file": "",
                "given_chosen": "model",  # with "file": or "file", its answers
                "judge": "rules",  # or "none", "policy"
                "kinds": {},  # of written questions, {"temporal": 1.0, ...}; {}: the paper's eight
                "segments": "uniform",  # or "shots"
                "segment_seconds": 6.0,
                "shot_change": 0.15,
                "segment_frames": 9,
                "dense_frames": 32,
                "sparse_frames": 4,
                "negatives": {
                    "localized": {"irrelevant": 1.0},  # shares; also "drop", "shuffle", "reverse"
                    "comprehensive": {"incomplete": 1.0},
                    "sparse_pick": "even",  # or "random"
                    "sparse_ratio": None,  # of the dense frames, instead of sparse_frames
                    "runs": 8,
                },
                "comprehensive_per_video": 6,
                "pairs": 1000,
                "localized_share": 0.5,
                "post_filter": True,  # False: the judge's verdict drops nothing
                "texts": {  # what drops a pair by its texts: data_pipelines/curation/text_rules.py
                    "inside": True,
                    "fewest": 1,
                    "most": 0,
                    "length_ratio": 0.0,
                    "repeats": 8,
                    "unfinished": True,
                },
                "endpoint": {
                    "base_url": "",
                    "model": "",
                    "key_variable": "TPO_ENDPOINT_KEY",  # that holds the key
                    "temperature": 0.0,
                    "max_tokens": 512,
                    "timeout": 120.0,
                    "retries": 6,
                    "backoff": 1.0,
                    "parallel": 8,
                    "requests_per_minute": 0.0,
                    "videos_at_once": 8,
                    "image_size": 0,
                    "price_in": 0.0,  # a million tokens
                    "price_out": 0.0,
                },
                "round": 0,  # of self-training
                "seed": 0,
            },
            "mesh": {"data": 1, "fsdp": -1, "context": 1, "tensor": 1},
            "distributed": {"heartbeat_seconds": 100},  # until a silent host is taken for dead
            "loss": {
                "preference": "sigmoid",  # DPO; others: see tpo_jax/preference/losses.py
                "beta": 0.1,
                "label_smoothing": None,  # for "sigmoid" and "robust"
                "length_alpha": None,  # for "length_desensitized"
                "dpo_weight": 1.0,
                "sft_weight": 1.0,
                "sft_reduction": "pair_mean",  # or "token_mean", "sum"
            },
            "train": {
                "steps": 0,  # 0: as many as `epochs` over the pairs make
                "epochs": 3,
                "batch_pairs": 8,
                "accumulate": 1,  # parts of a step's pairs, computed one after another
                "save_every": 20,
                "keep_last": 2,  # checkpoints
                "keep_every": None,  # or those of every so many steps too
                "keep_best_by": None,  # or "reward_accuracy", ...: the best by it too
                "on_nonfinite": "stop",  # or "skip", at most max_skipped steps in a row
                "max_skipped": 5,
                "grad_norm_limit": 0.0,  # before clipping; above it a step is bad; 0: none is
                "wandb": "",  # a project of Weights & Biases to draw curves in too
                "learning_rate": 3e-4,
                "part_learning_rates": {},  # {"projector": 1e-4}: parts with a rate of their own
                "warmup_ratio": 0.1,
                "weight_decay": 0.0,
                "clip_norm": 1.0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "frozen": ("vision",),
                "remat": "none",
                "answer_buckets": (),
                "max_tokens": 0,
                "loader_workers": 0,
                "grace_seconds": 25.0,  # that a checkpoint may take after SIGTERM
                "xla_options": (),
            },
            "profile": {"steps": ""},  # "10:13": steps to profile, both with it
            "eval": {
                "videos": run_dir + "/videos/heldout",
                "truth": run_dir + "/truth/heldout.json",
                "frames": 32,
                "localized_per_video": 3,
                "comprehensive_per_video": 3,
                "seed": 0,
            },
            "export": {"dtype": "bfloat16"},
            "synthetic": {"train": 150, "development": 60, "heldout": 200, "events": (6, 8)},
            "arms": {"names": ("sft", "random", "tpo"), "seeds": 3},
        }
    )
