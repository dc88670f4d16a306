"""From a policy's name to the policy."""

from __future__ import annotations

from worker_image.engine.scheduler.fair import WeightedFair
from worker_image.engine.scheduler.fcfs import FirstComeFirstServed
from worker_image.engine.scheduler.policy import Policy
from worker_image.engine.scheduler.ranked import EarliestDeadline, Feedback, Priority
from worker_image.engine.scheduler.settings import PolicyName, Scheduling


def make_policy(scheduling: Scheduling) -> Policy:
    match scheduling.policy:
        case PolicyName.FCFS:
            return FirstComeFirstServed()
        case PolicyName.PRIORITY:
            return Priority(scheduling.ageing_s)
        case PolicyName.FAIR:
            return WeightedFair(scheduling.ageing_s)
        case PolicyName.EDF:
            return EarliestDeadline(scheduling.ageing_s)
        case PolicyName.FEEDBACK:
            return Feedback(scheduling.ageing_s)
