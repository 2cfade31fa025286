"""Processes of ours that answer requests over a socket: started, asked and waited for. Nothing is pickled."""
