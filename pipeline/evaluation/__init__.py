"""Restored test images and their scores under each task's protocol."""
