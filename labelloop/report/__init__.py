"""Pictures of images, masks and results."""
