"""Forecasters, one a module: fit(Series) gives a Fitted, predict(steps) gives the load ahead."""
