# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=False
"""The door to the C kernels: checks shapes, lengths and overlap, releases the GIL, owns no policy."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

import numpy as np
cimport numpy as cnp

cnp.import_array()

cdef extern from "kernels.h" nogil:
    ctypedef struct cc_kernels:
        const char *level
        void (*tdes_ecb)(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n) noexcept nogil
        void (*tdes_pboc)(const uint8_t *keys, size_t key_stride, const uint8_t *factors, uint8_t *out, size_t n, int parity) noexcept nogil
        void (*tdes_kcv)(const uint8_t *keys, uint8_t *out, size_t n) noexcept nogil
        void (*sm4_ecb)(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n) noexcept nogil
        void (*sm4_pboc)(const uint8_t *keys, size_t key_stride, const uint8_t *factors, uint8_t *out, size_t n) noexcept nogil
        void (*sm4_kcv)(const uint8_t *keys, uint8_t *out, size_t n) noexcept nogil
        void (*aes_ecb)(const uint8_t *keys, size_t key_stride, size_t key_len, const uint8_t *blocks, uint8_t *out, size_t n) noexcept nogil
        void (*aes_kcv01)(const uint8_t *keys, size_t key_len, uint8_t *out, size_t n) noexcept nogil
        void (*sbox_table)(int box, uint8_t *out) noexcept nogil

    enum:
        CC_MAX_LEVELS
    size_t cc_levels(const cc_kernels **found)

cdef const cc_kernels *found[CC_MAX_LEVELS]
cdef size_t found_count = cc_levels(found)
cdef const cc_kernels *kernels = found[0]

_SBOXES = ("des-1", "des-2", "des-3", "des-4", "des-5", "des-6", "des-7", "des-8", "aes", "sm4")


cdef const uint8_t *_pointer(cnp.ndarray array) noexcept:
    return <const uint8_t *>cnp.PyArray_DATA(array)


cdef cnp.ndarray _bytes_array(object value, str name):
    """`value` itself, proven to be a C-contiguous uint8 ndarray."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a numpy array of uint8, not {type(value).__name__}")
    cdef cnp.ndarray array = value
    if cnp.PyArray_TYPE(array) != cnp.NPY_UINT8:
        raise TypeError(f"{name} must have dtype uint8, not {array.dtype}")
    if not cnp.PyArray_IS_C_CONTIGUOUS(array):
        raise ValueError(f"{name} must be C-contiguous")
    return array


cdef cnp.ndarray _rows(object value, str name, tuple widths):
    """A (n, width) array with a permitted width."""
    cdef cnp.ndarray array = _bytes_array(value, name)
    if array.ndim != 2 or array.shape[1] not in widths:
        raise ValueError(f"{name} must have shape (n, {' or '.join(map(str, widths))}), not {_shape(array)}")
    return array


cdef str _shape(cnp.ndarray array):
    return str(tuple([array.shape[i] for i in range(array.ndim)]))


cdef cnp.ndarray _keys(object value, str name, tuple widths, Py_ssize_t n):
    """One key (width,) for all n lanes or a key per lane (n, width)."""
    cdef cnp.ndarray array = _bytes_array(value, name)
    cdef str allowed = " or ".join(map(str, widths))
    if array.ndim == 1 and array.shape[0] in widths:
        return array
    if array.ndim != 2 or array.shape[1] not in widths:
        raise ValueError(f"{name} must have shape ({allowed},) or (n, {allowed}), not {_shape(array)}")
    if array.shape[0] != n:
        raise ValueError(f"{name} has {array.shape[0]} rows for {n} lanes")
    return array


cdef cnp.ndarray _output(object out, Py_ssize_t n, Py_ssize_t width, cnp.ndarray source, cnp.ndarray keys):
    """`out` checked, or a new array. It may be `source` itself; any other overlap would be read after it was written."""
    if out is None:
        return np.empty((n, width), dtype=np.uint8)
    cdef cnp.ndarray array = _rows(out, "out", (width,))
    if array.shape[0] != n:
        raise ValueError(f"out has {array.shape[0]} rows for {n} lanes")
    if not cnp.PyArray_ISWRITEABLE(array):
        raise ValueError("out is read-only")
    if _overlap(array, keys):
        raise ValueError("out overlaps the keys")
    if _overlap(array, source) and not (_pointer(array) == _pointer(source) and array.shape[1] == source.shape[1]):
        raise ValueError("out overlaps the input in part")
    return array


cdef bint _overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef const uint8_t *start_a = _pointer(a)
    cdef const uint8_t *start_b = _pointer(b)
    return start_a < start_b + cnp.PyArray_NBYTES(b) and start_b < start_a + cnp.PyArray_NBYTES(a)


def levels():
    return tuple([found[i].level.decode() for i in range(found_count)])


def use_level(name):
    """Every kernel call from now on runs at this level; a process chooses once, before the first call."""
    global kernels
    kernels = found[levels().index(name)]


def level():
    return kernels.level.decode()


def tdes_ecb(keys, blocks, out=None):
    cdef cnp.ndarray source = _rows(blocks, "blocks", (8,))
    cdef cnp.ndarray key = _keys(keys, "keys", (16,), source.shape[0])
    cdef cnp.ndarray result = _output(out, source.shape[0], 8, source, key)
    cdef size_t n = source.shape[0], stride = 16 if key.ndim == 2 else 0
    cdef const uint8_t *k = _pointer(key)
    cdef const uint8_t *b = _pointer(source)
    cdef uint8_t *o = <uint8_t *>_pointer(result)
    with nogil:
        kernels.tdes_ecb(k, stride, b, o, n)
    return result


def sm4_ecb(keys, blocks, out=None):
    cdef cnp.ndarray source = _rows(blocks, "blocks", (16,))
    cdef cnp.ndarray key = _keys(keys, "keys", (16,), source.shape[0])
    cdef cnp.ndarray result = _output(out, source.shape[0], 16, source, key)
    cdef size_t n = source.shape[0], stride = 16 if key.ndim == 2 else 0
    cdef const uint8_t *k = _pointer(key)
    cdef const uint8_t *b = _pointer(source)
    cdef uint8_t *o = <uint8_t *>_pointer(result)
    with nogil:
        kernels.sm4_ecb(k, stride, b, o, n)
    return result


def aes_ecb(keys, blocks, out=None):
    cdef cnp.ndarray source = _rows(blocks, "blocks", (16,))
    cdef cnp.ndarray key = _keys(keys, "keys", (16, 24, 32), source.shape[0])
    cdef cnp.ndarray result = _output(out, source.shape[0], 16, source, key)
    cdef size_t n = source.shape[0], key_len = key.shape[key.ndim - 1]
    cdef size_t stride = key_len if key.ndim == 2 else 0
    cdef const uint8_t *k = _pointer(key)
    cdef const uint8_t *b = _pointer(source)
    cdef uint8_t *o = <uint8_t *>_pointer(result)
    with nogil:
        kernels.aes_ecb(k, stride, key_len, b, o, n)
    return result


def tdes_pboc(masters, factors, parity, out=None):
    cdef cnp.ndarray source = _rows(factors, "factors", (8,))
    cdef cnp.ndarray key = _keys(masters, "masters", (16,), source.shape[0])
    cdef cnp.ndarray result = _output(out, source.shape[0], 16, source, key)
    cdef size_t n = source.shape[0], stride = 16 if key.ndim == 2 else 0
    cdef int odd = 1 if parity else 0
    cdef const uint8_t *k = _pointer(key)
    cdef const uint8_t *f = _pointer(source)
    cdef uint8_t *o = <uint8_t *>_pointer(result)
    with nogil:
        kernels.tdes_pboc(k, stride, f, o, n, odd)
    return result


def sm4_pboc(masters, factors, out=None):
    cdef cnp.ndarray source = _rows(factors, "factors", (8,))
    cdef cnp.ndarray key = _keys(masters, "masters", (16,), source.shape[0])
    cdef cnp.ndarray result = _output(out, source.shape[0], 16, source, key)
    cdef size_t n = source.shape[0], stride = 16 if key.ndim == 2 else 0
    cdef const uint8_t *k = _pointer(key)
    cdef const uint8_t *f = _pointer(source)
    cdef uint8_t *o = <uint8_t *>_pointer(result)
    with nogil:
        kernels.sm4_pboc(k, stride, f, o, n)
    return result


def tdes_kcv(keys):
    cdef cnp.ndarray source = _rows(keys, "keys", (16,))
    cdef cnp.ndarray result = np.empty((source.shape[0], 3), dtype=np.uint8)
    cdef size_t n = source.shape[0]
    cdef const uint8_t *k = _pointer(source)
    cdef uint8_t *o = <uint8_t *>_pointer(result)
    with nogil:
        kernels.tdes_kcv(k, o, n)
    return result


def sm4_kcv(keys):
    cdef cnp.ndarray source = _rows(keys, "keys", (16,))
    cdef cnp.ndarray result = np.empty((source.shape[0], 3), dtype=np.uint8)
    cdef size_t n = source.shape[0]
    cdef const uint8_t *k = _pointer(source)
    cdef uint8_t *o = <uint8_t *>_pointer(result)
    with nogil:
        kernels.sm4_kcv(k, o, n)
    return result


def aes_kcv01(keys):
    cdef cnp.ndarray source = _rows(keys, "keys", (16, 24, 32))
    cdef cnp.ndarray result = np.empty((source.shape[0], 3), dtype=np.uint8)
    cdef size_t n = source.shape[0], key_len = source.shape[1]
    cdef const uint8_t *k = _pointer(source)
    cdef uint8_t *o = <uint8_t *>_pointer(result)
    with nogil:
        kernels.aes_kcv01(k, key_len, o, n)
    return result


def sbox_table(name):
    if name not in _SBOXES:
        raise ValueError(f"no S-box named {name!r}; one of {', '.join(_SBOXES)}")
    cdef int box = _SBOXES.index(name) + 1
    cdef cnp.ndarray result = np.empty(64 if box <= 8 else 256, dtype=np.uint8)
    kernels.sbox_table(box, <uint8_t *>_pointer(result))
    return result
