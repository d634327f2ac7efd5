"""Generation: a video's frames are encoded once, prompts gather from them, answers are decoded."""
