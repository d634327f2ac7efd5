"""Log-probs of answers, the losses on them, and the reference computed beforehand."""
