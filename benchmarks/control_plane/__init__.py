"""How fast, how quiet and how small the operator is at 1,000 InferenceServices and 10,000 worker pods.

A real kube-apiserver and etcd, the operator's real process, and a peer: the same work in plain Kopf handlers. There are
no nodes: pods and the statuses of Deployments are written by `stand_in`, as controllers and kubelets would.

    fleet      what is declared            api        talking to the API server
    stand_in   what the cluster makes of it    subject    the process that is measured
    edits      spec edit → children         churn      pods that change
    run        the story                    rows       the numbers of a run as rows
"""
