"""Talking to chips: APDUs, status words, TLV and DGI, and the ways bytes reach a chip. No cryptography lives here."""
