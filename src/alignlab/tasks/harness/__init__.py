"""The door to EleutherAI's lm-evaluation-harness."""
