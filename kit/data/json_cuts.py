"""Where JSON text may be cut: the one loop over bytes, compiled. It knows strings and brackets, and nothing else."""

from numba import njit

QUOTE, BACKSLASH, COMMA, OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT = b'"\\,[]{}'


@njit(nogil=True, cache=True)
def cuts(data, start, most_commas):  # type: ignore[no-untyped-def]  # Numba finds the types
    """data: (bytes,) uint8, from `start` on, which lies outside of strings -> last, commas, close.

    last: the last comma outside of the brackets that open after start, of at most so many; commas: how many there are;
    close: the bracket that closes what was open at start. -1 where there is none.
    """
    last, commas, depth = -1, 0, 0
    is_text = False
    position = start
    while position < len(data):
        byte = data[position]
        if is_text:
            if byte == BACKSLASH:
                position += 1  # what follows ends no string
            elif byte == QUOTE:
                is_text = False
        elif byte == QUOTE:
            is_text = True
        elif byte in (OPEN_LIST, OPEN_OBJECT):
            depth += 1
        elif byte in (CLOSE_LIST, CLOSE_OBJECT):
            if depth == 0:
                return last, commas, position
            depth -= 1
        elif depth == 0 and byte == COMMA:
            last = position
            commas += 1
            if commas == most_commas:
                return last, commas, -1
        position += 1
    return last, commas, -1
