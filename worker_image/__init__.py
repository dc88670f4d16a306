"""The worker: an inference engine and the OpenAI-compatible server in front of it.

`checkpoint` reads weights and tokenizer, `models` holds the forward passes, `engine` schedules and samples in a
process of its own, `text` turns tokens into text, `server` speaks HTTP. Nothing here knows Kubernetes.
"""

from typing import Final

VERSION: Final = "0.1.0"
