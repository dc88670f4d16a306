"""From history to a forecast that scaling may rely on, and the CapacityForecast that shows it.

work.py        counts of requests and tokens → the work that arrived (pure)
job.py         what a process of the pool gets and gives
child.py       that process
pool.py        a bounded number of them, each killed when it takes too long
board.py       who is forecast when, what was said, and whether it came true
cold_starts.py how long workers took to start
reconciler.py  writes the CapacityForecast of each service that scales by forecast
"""
