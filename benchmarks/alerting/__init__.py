"""Alerts: a storm of 10,000, the root cause among distractors, and how calibrated an anomaly is.

faults.py       made fleets, faults in them, what alerts, and what alerts for no reason (seeded)
ranking.py      AC@1 and AC@3 of the root cause beside naive choices
storm.py        10,000 alerts through the controller's own loop, with restarts
anomalies.py    false alarms that were asked for and that came, on made loads
"""
