"""The subcommands for a person at a terminal: `chat` and `bench`. The same engine process, without HTTP."""
