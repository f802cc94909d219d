"""What PPO and its relatives share: rollouts, rewards, and the loss of a minibatch of what was rolled out."""
