"""What both feature networks share: their form for inference, and batches that fit."""
