"""What both feature networks share: their input size, their form for inference, and batches that fit."""

SIDE_PX = 224  # width and height of what ResNet-50 and I3D take
