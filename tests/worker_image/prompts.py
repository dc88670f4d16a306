"""Prompts for comparisons with other implementations: prose, code, numbers, other scripts, odd whitespace."""

from __future__ import annotations

from typing import Final

PROMPTS: Final = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    ",
    "The three laws of thermodynamics state that",
    "Q: What is 17 + 25?\nA:",
    "In 1969, Neil Armstrong",
    "Water boils at 100 degrees Celsius because",
    "Dear Sir or Madam,\n\nI am writing to",
    "import numpy as np\n\ndef softmax(x):",
    "The quick brown fox jumps over the lazy dog. " * 8,
    "To make bread, you need flour, water, salt and",
    "SELECT name, age FROM users WHERE",
    "Die Hauptstadt von Deutschland ist",
    "La photosynthèse est le processus par lequel",
    "  indented   text with    odd spacing\t\tand tabs",
    "List of planets: Mercury, Venus, Earth,",
    "A haiku about autumn:\n",
    "The derivative of sin(x) is",
    '{"name": "Alice", "age": 30, "city":',
    "Shakespeare wrote many plays, including",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The mitochondria is the powerhouse of the cell. Its main function",
    "1, 1, 2, 3, 5, 8, 13,",
    "Sunlight reaches the Earth in about eight minutes",
)
