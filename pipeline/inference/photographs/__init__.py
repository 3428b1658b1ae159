"""Photographs of users, in and out: finding files, reading rows of them, writing rows."""
