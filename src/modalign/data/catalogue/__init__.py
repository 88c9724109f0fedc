"""Public sets of image pairs: what they are, how to get them, and their pairs split exactly as published."""

from modalign.data.catalogue.entries import ENTRIES
from modalign.data.catalogue.entry import Entry, Split
from modalign.data.catalogue.fetch import RECEIPT, SERVER, Offer, get, offer

__all__ = ["ENTRIES", "RECEIPT", "SERVER", "Entry", "Offer", "Split", "get", "offer"]
