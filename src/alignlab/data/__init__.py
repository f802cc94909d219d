"""Pictures with captions: built-in scenes and emoji, your own files, tokenizers, batches."""
