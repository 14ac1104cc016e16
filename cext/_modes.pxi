# Modes of operation of the ciphers with 16-byte blocks: what the doors of SM4 and AES share.


cdef cc_rows _as_rows(cnp.ndarray array) noexcept:
    cdef cc_rows rows
    rows.bytes, rows.stride, rows.len = _pointer(array), _stride(array), array.shape[array.ndim - 1]
    return rows


cdef cnp.ndarray _ecb(const cc_modes *modes, object keys, tuple widths, object blocks, object out):
    cdef cnp.ndarray source = _rows(blocks, "blocks", (16,))
    cdef cnp.ndarray key = _keys(keys, "keys", widths, source.shape[0])
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], 16, source, (key,))
    cdef cc_rows k = _as_rows(key)
    cdef size_t n = source.shape[0]
    cdef const uint8_t *b = _pointer(source)
    cdef uint8_t *o = _writable(result)
    with nogil:
        modes.ecb(k, b, o, n)
    return result


cdef cnp.ndarray _cbc(const cc_modes *modes, object keys, tuple widths, object plain, object iv, object out):
    cdef cnp.ndarray source = _messages(plain, "plain", 16)
    cdef cnp.ndarray key = _keys(keys, "keys", widths, source.shape[0])
    cdef cnp.ndarray initial = _iv(iv, 16, source.shape[0])
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], source.shape[1], source, (key, initial))
    cdef cc_rows k = _as_rows(key), v = _as_rows(initial), p = _as_rows(source)
    cdef size_t n = source.shape[0]
    cdef uint8_t *o = _writable(result)
    with nogil:
        modes.cbc(k, v, p, o, n)
    return result


cdef cnp.ndarray _cbc_mac(const cc_modes *modes, object keys, tuple widths, object messages, object iv):
    cdef cnp.ndarray source = _messages(messages, "messages", 16)
    cdef cnp.ndarray key = _keys(keys, "keys", widths, source.shape[0])
    cdef cnp.ndarray initial = _iv(iv, 16, source.shape[0])
    cdef cnp.ndarray result = np.empty((source.shape[0], 16), dtype=np.uint8)
    cdef cc_rows k = _as_rows(key), v = _as_rows(initial), m = _as_rows(source)
    cdef size_t n = source.shape[0]
    cdef uint8_t *o = _writable(result)
    with nogil:
        modes.cbc_mac(k, v, m, o, n)
    return result


cdef cnp.ndarray _cmac(const cc_modes *modes, object keys, tuple widths, object messages, object out):
    cdef cnp.ndarray source = _messages(messages, "messages", 1)
    cdef cnp.ndarray key = _keys(keys, "keys", widths, source.shape[0])
    cdef cnp.ndarray result = _output(out, "out", source.shape[0], 16, source, (key,))
    cdef cc_rows k = _as_rows(key), m = _as_rows(source)
    cdef size_t n = source.shape[0]
    cdef uint8_t *o = _writable(result)
    with nogil:
        modes.cmac(k, m, o, n)
    return result


cdef cnp.ndarray _kcv(const cc_modes *modes, object keys, tuple widths, object method):
    cdef cnp.ndarray source = _rows(keys, "keys", widths)
    cdef int kind = _kcv_method(method)
    cdef cnp.ndarray result = np.empty((source.shape[0], cc_kcv_size(kind)), dtype=np.uint8)
    cdef cc_rows k = _as_rows(source)
    cdef size_t n = source.shape[0]
    cdef uint8_t *o = _writable(result)
    with nogil:
        modes.kcv(k, kind, o, n)
    return result
