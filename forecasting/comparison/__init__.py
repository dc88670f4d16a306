"""Is one revision worse than another? Sequential tests of error rates and of histograms, valid at every look."""
