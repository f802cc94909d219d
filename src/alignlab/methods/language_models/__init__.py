"""What methods on language models share: the net with its adapter, log-probabilities of responses, the export."""
