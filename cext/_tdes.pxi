# The doors of triple DES.


def tdes_ecb(keys, blocks, out=None):
    cdef cnp.ndarray source = _rows(blocks, "blocks", (8,))
    cdef cnp.ndarray key = _keys(keys, "keys", (16,), source.shape[0])
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], 8, source, (key,))
    cdef size_t n = source.shape[0], stride = _stride(key)
    cdef const uint8_t *k = _pointer(key)
    cdef const uint8_t *b = _pointer(source)
    cdef uint8_t *o = _writable(result)
    with nogil:
        tdes.ecb(k, stride, b, o, n)
    return result


def tdes_cbc(keys, plain, iv=None, out=None):
    cdef cnp.ndarray source = _messages(plain, "plain", 8)
    cdef cnp.ndarray key = _keys(keys, "keys", (16,), source.shape[0])
    cdef cnp.ndarray initial = _iv(iv, 8, source.shape[0])
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], source.shape[1], source, (key, initial))
    cdef size_t n = source.shape[0], length = source.shape[1], stride = _stride(key), iv_stride = _stride(initial)
    cdef const uint8_t *k = _pointer(key)
    cdef const uint8_t *p = _pointer(source)
    cdef const uint8_t *v = _pointer(initial)
    cdef uint8_t *o = _writable(result)
    with nogil:
        tdes.cbc(k, stride, p, length, v, iv_stride, o, n)
    return result


def tdes_retail_mac(keys, messages, iv=None):
    cdef cnp.ndarray source = _messages(messages, "messages", 8)
    cdef cnp.ndarray key = _keys(keys, "keys", (16,), source.shape[0])
    cdef cnp.ndarray initial = _iv(iv, 8, source.shape[0])
    cdef cnp.ndarray result = np.empty((source.shape[0], 8), dtype=np.uint8)
    cdef size_t n = source.shape[0], length = source.shape[1], stride = _stride(key), iv_stride = _stride(initial)
    cdef const uint8_t *k = _pointer(key)
    cdef const uint8_t *m = _pointer(source)
    cdef const uint8_t *v = _pointer(initial)
    cdef uint8_t *o = _writable(result)
    with nogil:
        tdes.retail_mac(k, stride, m, length, v, iv_stride, o, n)
    return result


def tdes_cmac(keys, messages):
    cdef cnp.ndarray source = _messages(messages, "messages", 1)
    cdef cnp.ndarray key = _keys(keys, "keys", (16,), source.shape[0])
    cdef cnp.ndarray result = np.empty((source.shape[0], 8), dtype=np.uint8)
    cdef size_t n = source.shape[0], length = source.shape[1], stride = _stride(key)
    cdef const uint8_t *k = _pointer(key)
    cdef const uint8_t *m = _pointer(source)
    cdef uint8_t *o = _writable(result)
    with nogil:
        tdes.cmac(k, stride, m, length, o, n)
    return result


def tdes_kcv(keys, method="zero-block"):
    cdef cnp.ndarray source = _rows(keys, "keys", (16,))
    cdef int kind = _kcv_method(method)
    cdef cnp.ndarray result = np.empty((source.shape[0], cc_kcv_size(kind)), dtype=np.uint8)
    cdef size_t n = source.shape[0]
    cdef const uint8_t *k = _pointer(source)
    cdef uint8_t *o = _writable(result)
    with nogil:
        tdes.kcv(k, kind, o, n)
    return result


def tdes_pboc(masters, factors, parity, out=None, kcv=None):
    cdef cc_derivation what
    cdef cnp.ndarray source = _factors(factors)
    cdef cnp.ndarray key = _keys(masters, "masters", (16,), source.shape[0])
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], 16, source, (key,))
    cdef cnp.ndarray checks = _derivation(&what, source, key, result, kcv, None)
    cdef size_t n = source.shape[0]
    what.parity = 1 if parity else 0
    with nogil:
        tdes.pboc(&what, n)
    return result if checks is None else (result, checks)


def tdes_pboc_wrapped(masters, factors, parity, kek, *, mode="ecb", iv=None, kcv="zero-block", out=None, kcv_out=None):
    cdef cc_derivation what
    cdef cnp.ndarray source = _factors(factors)
    cdef cnp.ndarray key = _keys(masters, "masters", (16,), source.shape[0])
    cdef cnp.ndarray wrapping = _one_key(kek, "kek", (16,))
    cdef cnp.ndarray initial = _iv(iv, 8, source.shape[0])
    cdef bint cbc = _cbc_mode(mode, iv)
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], 16, source, (key, wrapping, initial))
    cdef cnp.ndarray checks = _derivation(&what, source, key, result, _named(kcv), kcv_out)
    cdef size_t n = source.shape[0]
    _disjoint(checks, "kcv_out", (source, key, wrapping, initial, result))
    what.parity = 1 if parity else 0
    _wrapping(&what, wrapping, initial, cbc)
    with nogil:
        tdes.pboc(&what, n)
    return result, checks


def scp02_wrap(enc_keys, mac_keys, chain, apdus, plain, out=None, slab=False):
    cdef cc_segment segment
    cdef cnp.ndarray data = _messages(plain, "plain", 1)
    cdef cnp.ndarray commands = _apdus(apdus, data.shape[1])
    cdef cnp.ndarray enc = _own_keys(enc_keys, "enc_keys", (16,), data.shape[0])
    cdef cnp.ndarray mac = _own_keys(mac_keys, "mac_keys", (16,), data.shape[0])
    cdef cnp.ndarray chaining = _chaining(chain, 8, data.shape[0], (enc, mac, data, commands))
    cdef Py_ssize_t prefix = 2 if slab else 0
    cdef cnp.ndarray result = _output(
        out, "out", data.shape[0], _secured_width(commands, 8, prefix), None, (data, enc, mac, chaining, commands)
    )
    cdef size_t n = data.shape[0]
    _segment(&segment, enc, mac, chaining, commands, data, result, prefix)
    with nogil:
        tdes.scp02_wrap(&segment, n)
    return result
