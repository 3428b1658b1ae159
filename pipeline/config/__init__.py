"""Configuration: ``pipeline/conf`` holds the values, the dataclasses here hold their meaning."""
