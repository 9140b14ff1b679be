"""``Progress`` until its last importer names ``app.errors``."""

from app.errors import Progress

__all__ = ["Progress"]
