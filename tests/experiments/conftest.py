from tests.reporting.conftest import empty, full

__all__ = ["empty", "full"]
