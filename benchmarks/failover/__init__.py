"""Workers killed and hung in the middle of streams: what their clients lose, and how long they wait."""
