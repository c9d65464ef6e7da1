"""The steps of a run, each a Prefect flow."""
