"""Talking to a deployed application: its description, requests, stored fields."""
