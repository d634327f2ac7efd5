"""XLA options for tests that compile many shapes and run each once, on a CPU.

The same computation, less optimized: the training step compiles in a sixth of the time.
"""

from typing import Any

QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_llvm_disable_expensive_passes": True,
}
