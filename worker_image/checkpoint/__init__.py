"""What is on disk: GGUF parsing, dequantisation, tokenizer, digest. Nothing here runs a model."""
