"""Measuring this machine: one probe a module, each bounded in time, none of which knows the wire.

probe       what a probe is, how its rounds are timed, and what becomes of one that cannot run
kernels     keys a second
cards       images and segments, by batch
custody     calls to whoever holds the master keys
disk        commits of the ledger on one disk
chips       APDU times through a reader
merge       figures of an earlier profile of the same machine
"""
