"""What the load was: read from Prometheus, or kept here in a file by asking the gateways. Forecasts nothing.

interface.py    Counts, HistorySource, HistoryUnavailable
counters.py     counters of a gateway's page → increments; resets and restarts handled (pure)
scraper.py      the loop that asks the gateways and writes the store
store.py        SQLite: counts, cold starts, decisions; bounded by age and by size
thread.py       the store off the event loop, as a HistorySource
prometheus.py   a Prometheus server as a HistorySource
"""
