"""Trace replay: every autoscaler, ours and the peers', meets the same requests, cold starts and late metrics.

Opens no files and reads no clock; what is random comes from a seed.
"""
