"""What is on disk: GGUF, safetensors, configs, tokenizers, digests. Nothing here runs a model or imports torch."""
