"""Worker processes that answer requests over a socket: start them, send requests, wait. Nothing is pickled."""
