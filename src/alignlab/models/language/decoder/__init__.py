"""One decoder in plain torch, told by settings: GPT-2, BLOOM, Llama, prefix decoders, mixtures, what lies between."""
