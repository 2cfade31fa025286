"""One process in front of local indexes and Vespa applications: the HTTP API, the page, and MCP beside them."""
