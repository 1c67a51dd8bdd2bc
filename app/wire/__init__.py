"""Bytes to arrays and back: pure codecs that lose nothing. No web framework in here."""
