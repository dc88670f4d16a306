"""The autoscalers of the comparison: ours and the published algorithms of the peers, over one `View`."""
