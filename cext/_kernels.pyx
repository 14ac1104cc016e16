# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=False
"""The door to the C kernels: checks shapes, lengths and overlap, releases the GIL, owns no policy.

This file has the checks and the choice of level; the doors of each family are in its own include.
"""

from libc.stddef cimport size_t
from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t

import numpy as np
cimport numpy as cnp

cnp.import_array()

cdef extern from "kernels.h" nogil:
    enum:
        CC_KCV_NONE
        CC_KCV_ZERO_BLOCK
        CC_KCV_ONE_BLOCK
        CC_KCV_CMAC
        CC_MAX_LEVELS
        CC_FEATURES
    size_t cc_kcv_size(int method)

    ctypedef struct cc_apdu:
        uint32_t offset
        uint16_t length
        uint8_t encrypt
        int16_t le

    ctypedef struct cc_derivation:
        const uint8_t *masters
        size_t master_stride
        const uint8_t *factors
        size_t levels
        int parity
        const uint8_t *kek
        size_t kek_len
        const uint8_t *iv
        size_t iv_stride
        int kcv_method
        uint8_t *out
        uint8_t *kcv

    ctypedef struct cc_segment:
        const uint8_t *enc_keys
        const uint8_t *mac_keys
        size_t key_len
        uint8_t *chain
        const cc_apdu *apdus
        size_t commands
        const uint8_t *plain
        size_t plain_stride
        uint8_t *out
        size_t out_stride
        size_t prefix
        uint8_t *chains

    ctypedef struct cc_tdes_kernels:
        const char *name
        void (*ecb)(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n) noexcept nogil
        void (*cbc)(const uint8_t *keys, size_t key_stride, const uint8_t *plain, size_t length, const uint8_t *iv, size_t iv_stride,
                    uint8_t *out, size_t n) noexcept nogil
        void (*retail_mac)(const uint8_t *keys, size_t key_stride, const uint8_t *messages, size_t length, const uint8_t *iv,
                           size_t iv_stride, uint8_t *out, size_t n) noexcept nogil
        void (*cmac)(const uint8_t *keys, size_t key_stride, const uint8_t *messages, size_t length, uint8_t *out, size_t n) noexcept nogil
        void (*kcv)(const uint8_t *keys, int method, uint8_t *out, size_t n) noexcept nogil
        void (*pboc)(const cc_derivation *what, size_t n) noexcept nogil
        void (*scp02_wrap)(const cc_segment *segment, size_t n) noexcept nogil
        void (*sbox_table)(int box, uint8_t *out) noexcept nogil

    ctypedef struct cc_rows:
        const uint8_t *bytes
        size_t stride
        size_t len

    ctypedef struct cc_modes:
        void (*ecb)(cc_rows keys, const uint8_t *blocks, uint8_t *out, size_t n) noexcept nogil
        void (*cbc)(cc_rows keys, cc_rows iv, cc_rows plain, uint8_t *out, size_t n) noexcept nogil
        void (*cbc_mac)(cc_rows keys, cc_rows iv, cc_rows messages, uint8_t *out, size_t n) noexcept nogil
        void (*cmac)(cc_rows keys, cc_rows messages, uint8_t *out, size_t n) noexcept nogil
        void (*kcv)(cc_rows keys, int method, uint8_t *out, size_t n) noexcept nogil

    ctypedef struct cc_sm4_kernels:
        const char *name
        cc_modes modes
        void (*pboc)(const cc_derivation *what, size_t n) noexcept nogil
        void (*sbox_table)(uint8_t *out) noexcept nogil

    ctypedef struct cc_aes_kernels:
        const char *name
        cc_modes modes
        void (*cmac_wrapped)(cc_rows masters, cc_rows messages, cc_rows kek, cc_rows iv, int method, uint8_t *out, uint8_t *kcvs,
                             size_t n) noexcept nogil
        void (*kw)(cc_rows kek, cc_rows keys, uint8_t *out, size_t n) noexcept nogil
        void (*scp03_wrap)(const cc_segment *segment, size_t n) noexcept nogil
        void (*sbox_table)(uint8_t *out) noexcept nogil

    ctypedef struct cc_level:
        const char *name
        const cc_tdes_kernels *tdes
        const cc_sm4_kernels *sm4
        const cc_aes_kernels *aes
    size_t cc_levels(cc_level *found)
    size_t cc_levels_with(unsigned features, cc_level *found)

    const char *cc_feature_names[CC_FEATURES]
    unsigned cc_features()

cdef cc_level found[CC_MAX_LEVELS]
cdef size_t found_count = cc_levels(found)
cdef const cc_tdes_kernels *tdes = found[0].tdes
cdef const cc_sm4_kernels *sm4 = found[0].sm4
cdef const cc_aes_kernels *aes = found[0].aes
cdef object running_level = found[0].name.decode()

_SBOXES = ("des-1", "des-2", "des-3", "des-4", "des-5", "des-6", "des-7", "des-8", "aes", "sm4")
_KCV_METHODS = {"zero-block": CC_KCV_ZERO_BLOCK, "one-block": CC_KCV_ONE_BLOCK, "cmac": CC_KCV_CMAC}
_ZEROS = np.zeros(16, dtype=np.uint8)

# Aligned, so that a row lies in memory as cc_apdu does.
APDU = np.dtype(
    [
        ("offset", "<u4"), ("length", "<u2"), ("cla", "u1"), ("ins", "u1"), ("p1", "u1"), ("p2", "u1"), ("encrypt", "u1"), ("le", "<i2"),
        ("counter", "<u4"),
    ],
    align=True,
)


def levels():
    return tuple([found[i].name.decode() for i in range(found_count)])


def use_level(name, without=()):
    """Every kernel call from now on runs at this level; a process chooses once, before the first call.

    `without` names features of the CPU to do without, so that tests reach the kernels of lesser CPUs.
    """
    global tdes, sm4, aes, running_level
    cdef cc_level composed[CC_MAX_LEVELS]
    cdef Py_ssize_t i = levels().index(name)
    cdef unsigned bits = cc_features()
    for k in range(CC_FEATURES):
        if cc_feature_names[k].decode() in without:
            bits &= ~(<unsigned>1 << k)
    if <Py_ssize_t>cc_levels_with(bits, composed) <= i:
        raise ValueError(f"no level {name} without {', '.join(without)}")
    tdes, sm4, aes, running_level = composed[i].tdes, composed[i].sm4, composed[i].aes, name


def level():
    return running_level


def running():
    return {"tdes": tdes.name.decode(), "sm4": sm4.name.decode(), "aes": aes.name.decode()}


def features():
    cdef unsigned bits = cc_features()
    return tuple([cc_feature_names[i].decode() for i in range(CC_FEATURES) if bits >> i & 1])


def sbox_table(name):
    if name not in _SBOXES:
        raise ValueError(f"no S-box named {name!r}; one of {', '.join(_SBOXES)}")
    cdef int box = _SBOXES.index(name) + 1
    cdef cnp.ndarray result = np.empty(64 if box <= 8 else 256, dtype=np.uint8)
    if box <= 8:
        tdes.sbox_table(box, _writable(result))
    elif box == 9:
        aes.sbox_table(_writable(result))
    else:
        sm4.sbox_table(_writable(result))
    return result


cdef const uint8_t *_pointer(cnp.ndarray array) noexcept:
    return <const uint8_t *>cnp.PyArray_DATA(array)


cdef uint8_t *_writable(cnp.ndarray array) noexcept:
    return <uint8_t *>cnp.PyArray_DATA(array)


cdef size_t _stride(cnp.ndarray array) noexcept:
    """Distance of the values for two rows: 0 where one value serves all."""
    return array.shape[1] if array.ndim == 2 else 0


cdef str _shape(cnp.ndarray array):
    return str(tuple([array.shape[i] for i in range(array.ndim)]))


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
    """A (n, width) array with a permitted width and at least one row."""
    cdef cnp.ndarray array = _bytes_array(value, name)
    if array.ndim != 2 or array.shape[1] not in widths:
        raise ValueError(f"{name} must have shape (n, {' or '.join(map(str, widths))}), not {_shape(array)}")
    if array.shape[0] == 0:
        raise ValueError(f"{name} has no rows")
    return array


cdef cnp.ndarray _messages(object value, str name, Py_ssize_t block):
    """A (n, length) array of at least one row, whose length is a positive multiple of `block`."""
    cdef cnp.ndarray array = _bytes_array(value, name)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (n, length), not {_shape(array)}")
    if array.shape[0] == 0:
        raise ValueError(f"{name} has no rows")
    if array.shape[1] == 0 or array.shape[1] % block:
        raise ValueError(f"{name} must have rows of a positive multiple of {block} bytes, not {array.shape[1]}")
    return array


cdef cnp.ndarray _factors(object value):
    """Dispersion factors (n, 8), or (n, levels, 8) with 1..8 levels."""
    cdef cnp.ndarray array = _bytes_array(value, "factors")
    cdef Py_ssize_t levels = array.shape[1] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or array.shape[array.ndim - 1] != 8 or not 1 <= levels <= 8:
        raise ValueError(f"factors must have shape (n, 8) or (n, 1 to 8, 8), not {_shape(array)}")
    if array.shape[0] == 0:
        raise ValueError("factors has no rows")
    return array


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


cdef cnp.ndarray _one_key(object value, str name, tuple widths):
    cdef cnp.ndarray array = _bytes_array(value, name)
    if array.ndim != 1 or array.shape[0] not in widths:
        raise ValueError(f"{name} must have shape ({' or '.join(map(str, widths))},), not {_shape(array)}")
    return array


cdef cnp.ndarray _iv(object value, Py_ssize_t block, Py_ssize_t n):
    """The initial value for all rows, or one per row; zeros when none is given."""
    return _ZEROS[:block] if value is None else _keys(value, "iv", (block,), n)


cdef int _kcv_method(object name) except -1:
    if not isinstance(name, str) or name not in _KCV_METHODS:
        raise ValueError(f"no check value method {name!r}; one of {', '.join(_KCV_METHODS)}")
    return _KCV_METHODS[name]


cdef bint _cbc_mode(object mode, object iv) except -1:
    """Whether `mode` is cbc; an initial value for ecb is an error, not ignored."""
    if mode not in ("ecb", "cbc"):
        raise ValueError(f"no mode {mode!r}; one of ecb, cbc")
    if mode == "ecb" and iv is not None:
        raise ValueError("ecb takes no iv")
    return mode == "cbc"


cdef cnp.ndarray _own_keys(object value, str name, tuple widths, Py_ssize_t n):
    """A key per row, never one for all."""
    cdef cnp.ndarray array = _rows(value, name, widths)
    if array.shape[0] != n:
        raise ValueError(f"{name} has {array.shape[0]} rows for {n} lanes")
    return array


cdef str _named(object kcv):
    """A check value method where one must be given."""
    if kcv is None:
        raise ValueError(f"kcv must be one of {', '.join(_KCV_METHODS)}, not None")
    return kcv


cdef cnp.ndarray _written(object value, str name, Py_ssize_t n, Py_ssize_t width):
    """An array of exactly that shape that may be written to."""
    cdef cnp.ndarray array = _rows(value, name, (width,))
    if array.shape[0] != n:
        raise ValueError(f"{name} has {array.shape[0]} rows for {n} lanes")
    if not cnp.PyArray_ISWRITEABLE(array):
        raise ValueError(f"{name} is read-only")
    return array


cdef int _disjoint(cnp.ndarray array, str name, tuple others) except -1:
    for other in others:
        if _overlap(array, other):
            raise ValueError(f"{name} overlaps the keys or another argument")
    return 0


cdef cnp.ndarray _output(object out, str name, Py_ssize_t n, Py_ssize_t width, cnp.ndarray source, tuple others):
    """`out` checked, or a new array. It may be `source` itself if that is as large; any other overlap would be read after it was written."""
    if out is None:
        return np.empty((n, width), dtype=np.uint8)
    cdef cnp.ndarray array = _written(out, name, n, width)
    _disjoint(array, name, others)
    if source is None or not _overlap(array, source):
        return array
    if _pointer(array) != _pointer(source) or cnp.PyArray_NBYTES(array) != cnp.PyArray_NBYTES(source):
        raise ValueError(f"{name} overlaps the input in part")
    return array


cdef cnp.ndarray _derivation(cc_derivation *what, cnp.ndarray factors, cnp.ndarray masters, cnp.ndarray out, object kcv, object kcv_out):
    """Fill `what` for keys that go out clear; returns the array for check values, None without a method."""
    cdef cnp.ndarray checks = None
    what.masters, what.master_stride = _pointer(masters), _stride(masters)
    what.factors, what.levels = _pointer(factors), factors.shape[1] if factors.ndim == 3 else 1
    what.parity = 0
    what.kek, what.kek_len, what.iv, what.iv_stride = NULL, 0, NULL, 0
    what.kcv_method = CC_KCV_NONE if kcv is None else _kcv_method(kcv)
    what.out, what.kcv = _writable(out), NULL
    if kcv is not None:
        width = cc_kcv_size(what.kcv_method)
        checks = np.empty((out.shape[0], width), dtype=np.uint8) if kcv_out is None else _written(kcv_out, "kcv_out", out.shape[0], width)
        what.kcv = _writable(checks)
    return checks


cdef void _wrapping(cc_derivation *what, cnp.ndarray kek, cnp.ndarray iv, bint cbc) noexcept:
    what.kek, what.kek_len = _pointer(kek), kek.shape[0]
    if cbc:
        what.iv, what.iv_stride = _pointer(iv), _stride(iv)


cdef bint _overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef const uint8_t *start_a = _pointer(a)
    cdef const uint8_t *start_b = _pointer(b)
    return start_a < start_b + cnp.PyArray_NBYTES(b) and start_b < start_a + cnp.PyArray_NBYTES(a)


cdef cnp.ndarray _apdus(object value, Py_ssize_t plain_width):
    """A (count,) array of APDU whose data lie inside a row of `plain_width` bytes."""
    if not isinstance(value, np.ndarray) or value.dtype.names != APDU.names:
        raise TypeError("apdus must be a numpy array of cext.APDU")
    cdef cnp.ndarray array = np.ascontiguousarray(value, dtype=APDU)
    if array.ndim != 1 or array.shape[0] == 0:
        raise ValueError(f"apdus must have shape (count,), not {_shape(array)}")
    cdef const cc_apdu *apdu = <const cc_apdu *>_pointer(array)
    for i in range(array.shape[0]):
        if <Py_ssize_t>apdu[i].offset + apdu[i].length > plain_width:
            raise ValueError(f"apdu {i} reads beyond the {plain_width} bytes of a row of plain data")
        if not -1 <= apdu[i].le <= 255:
            raise ValueError(f"apdu {i} has le {apdu[i].le}, not -1 or a byte")
    return array


cdef Py_ssize_t _secured_width(cnp.ndarray apdus, Py_ssize_t block, Py_ssize_t prefix) except -1:
    """Bytes of one row of secured commands, each behind a prefix; ValueError where one of them would not be a short APDU."""
    cdef const cc_apdu *apdu = <const cc_apdu *>_pointer(apdus)
    cdef Py_ssize_t width = 0, body
    for i in range(apdus.shape[0]):
        body = apdu[i].length
        if apdu[i].encrypt and body:
            body += block - body % block
        if body + 8 > 255:
            raise ValueError(f"apdu {i} would have {body + 8} bytes of secured data, more than 255")
        width += prefix + 5 + body + 8 + (apdu[i].le >= 0)
    return width


cdef cnp.ndarray _chaining(object chain, Py_ssize_t width, Py_ssize_t n, tuple others):
    """The chaining values of n cards: read, and written when the segment is wrapped."""
    cdef cnp.ndarray array = _written(chain, "chain", n, width)
    _disjoint(array, "chain", others)
    return array


cdef void _segment(
    cc_segment *segment, cnp.ndarray enc, cnp.ndarray mac, cnp.ndarray chain, cnp.ndarray apdus, cnp.ndarray plain, cnp.ndarray out,
    Py_ssize_t prefix,
) noexcept:
    segment.enc_keys, segment.mac_keys, segment.key_len = _pointer(enc), _pointer(mac), enc.shape[1]
    segment.chain = _writable(chain)
    segment.apdus, segment.commands = <const cc_apdu *>_pointer(apdus), apdus.shape[0]
    segment.plain, segment.plain_stride = _pointer(plain), plain.shape[1]
    segment.out, segment.out_stride = _writable(out), out.shape[1]
    segment.prefix = prefix
    segment.chains = NULL


include "_tdes.pxi"
include "_modes.pxi"
include "_sm4.pxi"
include "_aes.pxi"
include "_slab.pxi"
