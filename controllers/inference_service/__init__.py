"""The controller of InferenceServices: observe from caches, plan (in `controllers.plans`), write. Decides nothing."""
