"""What is known of an archive: its videos, clips, labels, families, models and scores."""
