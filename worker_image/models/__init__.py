"""Forward passes, one module an architecture, and the table that picks one by the checkpoint's own name for it."""
