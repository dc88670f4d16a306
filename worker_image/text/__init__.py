"""Between text and tokens: chat template, incremental detokenisation, stop strings. Server process only."""
