from vespa_oracle import vespa_oracle

__all__ = ["vespa_oracle"]
