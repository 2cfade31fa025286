"""What a user sets: app.toml with its tables, and names that Vespa takes. Whether settings can work is judged in
vespa_app.package.settings_checks."""
