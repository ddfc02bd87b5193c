"""The fixtures of records that tests make up."""

from tests.made_records import make, store

__all__ = ["make", "store"]
