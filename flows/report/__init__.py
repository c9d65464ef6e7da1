"""The report about a model's scores."""
