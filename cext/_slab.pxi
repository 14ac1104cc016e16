# Slabs: length[2] || item, one after another, as commands and answers travel. Nothing secret: everything here is on the wire.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy


def slab_split(bytes slab, bytes tail=b""):
    cdef const uint8_t *octets = <const uint8_t *>PyBytes_AS_STRING(slab)
    cdef const uint8_t *ending = <const uint8_t *>PyBytes_AS_STRING(tail)
    cdef Py_ssize_t at = 0, whole = PyBytes_GET_SIZE(slab), cut = PyBytes_GET_SIZE(tail), length
    cdef list items = []
    while at < whole:
        length = octets[at] << 8 | octets[at + 1] if at + 2 <= whole else whole
        at += 2
        if length > whole - at:
            raise ValueError(f"slab of {whole} bytes ends inside item {len(items)}")
        if length < cut or memcmp(octets + at + length - cut, ending, cut):
            raise LookupError(f"item {len(items)} does not end as it should")
        items.append(PyBytes_FromStringAndSize(<const char *>octets + at, length - cut))
        at += length
    return items


def slab_join(items):
    cdef Py_ssize_t whole = 0, length
    cdef list every = list(items)
    for item in every:
        length = len(<bytes?>item)
        if length > 0xFFFF:
            raise ValueError(f"an item of {length} bytes does not fit into a slab")
        whole += 2 + length
    cdef bytes slab = PyBytes_FromStringAndSize(NULL, whole)
    cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(slab)
    for item in every:
        length = PyBytes_GET_SIZE(item)
        to[0], to[1] = length >> 8, length & 0xFF
        memcpy(to + 2, PyBytes_AS_STRING(item), length)
        to += 2 + length
    return slab
