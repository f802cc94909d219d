"""Reinforcement learning of language models: rollouts, rewards, PPO and its relatives without a critic."""
