# The doors of AES.

_AES_KEYS = (16, 24, 32)


def aes_ecb(keys, blocks, out=None):
    return _ecb(&aes.modes, keys, _AES_KEYS, blocks, out)


def aes_cbc(keys, plain, iv=None, out=None):
    return _cbc(&aes.modes, keys, _AES_KEYS, plain, iv, out)


def aes_cbc_mac(keys, messages, iv=None):
    return _cbc_mac(&aes.modes, keys, _AES_KEYS, messages, iv)


def aes_cmac(keys, messages, out=None):
    return _cmac(&aes.modes, keys, _AES_KEYS, messages, out)


def aes_kcv(keys, method="one-block"):
    return _kcv(&aes.modes, keys, _AES_KEYS, method)


def aes_cmac_wrapped(masters, messages, kek, *, mode="ecb", iv=None, kcv="one-block", out=None, kcv_out=None):
    cdef cnp.ndarray source = _messages(messages, "messages", 1)
    cdef cnp.ndarray key = _keys(masters, "masters", _AES_KEYS, source.shape[0])
    cdef cnp.ndarray wrapping = _one_key(kek, "kek", _AES_KEYS)
    cdef cnp.ndarray initial = _iv(iv, 16, source.shape[0])
    cdef int kind = _kcv_method(kcv)
    cdef size_t n = source.shape[0]
    _cbc_mode(mode, iv)
    cdef cnp.ndarray result = _output(out, "out", n, 16, source, (key, wrapping, initial))
    cdef cnp.ndarray checks = _output(kcv_out, "kcv_out", n, cc_kcv_size(kind), None, (source, key, wrapping, initial, result))
    cdef cc_rows k = _as_rows(key), m = _as_rows(source), w = _as_rows(wrapping), v = _as_rows(initial)
    cdef uint8_t *o = _writable(result)
    cdef uint8_t *c = _writable(checks)
    with nogil:
        aes.cmac_wrapped(k, m, w, v, kind, o, c, n)
    return result, checks


def aes_kw(kek, keys, out=None):
    cdef cnp.ndarray source = _rows(keys, "keys", _AES_KEYS)
    cdef cnp.ndarray wrapping = _one_key(kek, "kek", _AES_KEYS)
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], source.shape[1] + 8, None, (source, wrapping))
    cdef cc_rows w = _as_rows(wrapping), k = _as_rows(source)
    cdef size_t n = source.shape[0]
    cdef uint8_t *o = _writable(result)
    with nogil:
        aes.kw(w, k, o, n)
    return result


def scp03_wrap(enc_keys, mac_keys, chain, apdus, plain, out=None, chains=None, slab=False):
    cdef cc_segment segment
    cdef cnp.ndarray every
    cdef cnp.ndarray data = _messages(plain, "plain", 1)
    cdef cnp.ndarray commands = _apdus(apdus, data.shape[1])
    cdef cnp.ndarray enc = _own_keys(enc_keys, "enc_keys", _AES_KEYS, data.shape[0])
    cdef cnp.ndarray mac = _own_keys(mac_keys, "mac_keys", (enc.shape[1],), data.shape[0])
    cdef cnp.ndarray chaining = _chaining(chain, 16, data.shape[0], (enc, mac, data, commands))
    cdef Py_ssize_t prefix = 2 if slab else 0
    cdef cnp.ndarray result = _output(
        out, "out", data.shape[0], _secured_width(commands, 16, prefix), None, (data, enc, mac, chaining, commands)
    )
    cdef size_t n = data.shape[0]
    _segment(&segment, enc, mac, chaining, commands, data, result, prefix)
    if chains is not None:
        every = _written(chains, "chains", n * commands.shape[0], 16)
        _disjoint(every, "chains", (data, enc, mac, chaining, commands, result))
        segment.chains = _writable(every)
    with nogil:
        aes.scp03_wrap(&segment, n)
    return result
