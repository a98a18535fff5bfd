"""The processes of a job: what they were launched with, their devices, and how they wait for one another."""
