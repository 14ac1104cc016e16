# The doors of SM4.


def sm4_ecb(keys, blocks, out=None):
    return _ecb(&sm4.modes, keys, (16,), blocks, out)


def sm4_cbc(keys, plain, iv=None, out=None):
    return _cbc(&sm4.modes, keys, (16,), plain, iv, out)


def sm4_cbc_mac(keys, messages, iv=None):
    return _cbc_mac(&sm4.modes, keys, (16,), messages, iv)


def sm4_cmac(keys, messages, out=None):
    return _cmac(&sm4.modes, keys, (16,), messages, out)


def sm4_kcv(keys, method="zero-block"):
    return _kcv(&sm4.modes, keys, (16,), method)


def sm4_pboc(masters, factors, out=None, kcv=None):
    cdef cc_derivation what
    cdef cnp.ndarray source = _factors(factors)
    cdef cnp.ndarray key = _keys(masters, "masters", (16,), source.shape[0])
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], 16, source, (key,))
    cdef cnp.ndarray checks = _derivation(&what, source, key, result, kcv, None)
    cdef size_t n = source.shape[0]
    with nogil:
        sm4.pboc(&what, n)
    return result if checks is None else (result, checks)


def sm4_pboc_wrapped(masters, factors, kek, *, mode="ecb", iv=None, kcv="zero-block", out=None, kcv_out=None):
    cdef cc_derivation what
    cdef cnp.ndarray source = _factors(factors)
    cdef cnp.ndarray key = _keys(masters, "masters", (16,), source.shape[0])
    cdef cnp.ndarray wrapping = _one_key(kek, "kek", (16,))
    cdef cnp.ndarray initial = _iv(iv, 16, source.shape[0])
    cdef bint cbc = _cbc_mode(mode, iv)
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], 16, source, (key, wrapping, initial))
    cdef cnp.ndarray checks = _derivation(&what, source, key, result, _named(kcv), kcv_out)
    cdef size_t n = source.shape[0]
    _disjoint(checks, "kcv_out", (source, key, wrapping, initial, result))
    _wrapping(&what, wrapping, initial, cbc)
    with nogil:
        sm4.pboc(&what, n)
    return result, checks
