"""What tokenizers make of text: any kind of them, compared on a corpus, told apart by content, and extended."""
