"""Pictures of what the feature networks see."""
