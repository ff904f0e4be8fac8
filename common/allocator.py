"""Keep freed memory instead of returning it to the system at every gradient step."""

import ctypes

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc to reuse freed blocks; True if it took the advice, False where there is no glibc.

    Tensors of a gradient step are allocated and freed thousands of times a minute. By default glibc gives
    blocks above some MB back to the system and gets them anew, page by page.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    settings = {M_MMAP_THRESHOLD: 2**30, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
