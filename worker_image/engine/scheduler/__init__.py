"""Decides what the next step computes, for whom, and who has to give way.

`core` keeps the books of a step; a `Policy` orders requests; a `Door` lets them in one by one or in batches; `room`
names those who give way. Pure bookkeeping: no tensor, no clock, no I/O; `now` is an argument.
"""
