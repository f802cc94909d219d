"""A run of PPO or GRPO as what TRL, verl and OpenRLHF go on from: prompts, weights, rewards, settings."""
