"""Whether an answer is right, by a rule."""
