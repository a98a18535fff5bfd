"""Is this machine, or this job, fit to train? Checks whose findings say what is wrong and what to do."""
