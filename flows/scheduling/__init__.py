"""Runs that a Prefect server schedules: flows, deployments, workers."""
