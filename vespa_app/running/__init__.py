"""What a running application is to those who feed and ask it: its description, documents, requests, connections."""
