"""AlertPolicy: looks at every policy again and again, tells receivers, hears Alertmanagers, and writes the status.

facts.py       what the caches and the history say: ServiceFacts, topology, recent changes
past.py        counts of the history, read once for all policies
memory.py      a policy's book as rows of the leader's store, and as much of it as its status holds
desk.py        the loop: look → write down → send
courier.py     sends one message; addresses are checked
secrets.py     Secrets that policies may name
inbound.py     Alertmanager's messages, authenticated
reconciler.py  status, Events, rules for Prometheus
metrics.py     gauges of alerts and services
wiring.py      puts it together
"""
