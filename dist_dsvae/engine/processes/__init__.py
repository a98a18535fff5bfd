"""The processes of a job: how they were launched, their devices, how they wait for one another."""
