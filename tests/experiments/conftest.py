from tests.reporting.conftest import empty, full, on_ranks

__all__ = ["empty", "full", "on_ranks"]
