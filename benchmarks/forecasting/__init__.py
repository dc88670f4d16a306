"""Forecasts, intervals, anomaly scores and their speed, on public data and on self-made data."""
