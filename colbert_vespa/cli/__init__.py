"""The command line: commands, console, views."""
