"""What a user sets: app.toml, its tables, their checks."""
