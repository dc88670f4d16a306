"""A long run under mixed load on a real cluster, in which memory and file handles of every process must stay flat."""
