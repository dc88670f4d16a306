"""From what is measured to who is told what. Pure: values and `now_s` in, values out.

alerts.py        Alert: labels, fingerprint, matchers
readings.py      a rule and what is known of a service → is it broken, and by how much
states.py        pending → firing → resolved, and what comes and goes too often
topology.py      what depends on what: gateway, model, node, GPU → worker → revision → service
causes.py        which part explains the alerts best; alerts of one cause together
incidents.py     incidents: which alerts belong to which, for as long as they last; inhibition and silences
notices.py       which receiver must be told of which incident now; retries
payloads.py      Alertmanager's webhook v4, PagerDuty Events v2, Slack
inbound.py       Alertmanager's webhook → alerts
rule_files.py    the same policy for a real Prometheus
book.py          all of it for one policy, as it is remembered; one step
"""
