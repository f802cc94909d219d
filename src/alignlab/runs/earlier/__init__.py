"""What a run takes from earlier ones where its command line doesn't say."""
