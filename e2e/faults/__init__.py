"""Campaigns of faults against the operator, through a proxy of our own between it and a real API server.

A real etcd, API server and controller manager; the operator's real process, started, killed and started again; no
kubelet, no gateway, no node. Unlike `e2e.chaos`, which breaks what is around the operator, this breaks single requests
of it: each write, each list, each watch event can be met (docs/decisions/0027-operator-fault-campaigns.md).

    proxy       between operator and API server      lives     the operator's process, again and again
    faults      what can happen to a request         standin   kubelets and node agents
    ground      everything that stands               truth     what stands now, comparable between runs
    story       what people declare, stage by stage  controls  operators with a fault planted in them
    crash, stale, missed, refusals, mutations, quiet: the campaigns
"""
