/* Marks allocated and freed memory, to detect reads of bytes that were never written and writes to freed memory:
 * with patterns in debug builds and with RANGEIO_POISON=1, and with AddressSanitizer where it is built in.
 */
#ifndef RANGEIO_POISON_H
#define RANGEIO_POISON_H

#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define rangeio_forbid(place, size) ASAN_POISON_MEMORY_REGION(place, size)
#define rangeio_allow(place, size) ASAN_UNPOISON_MEMORY_REGION(place, size)
#else
#define rangeio_forbid(place, size) ((void)0)
#define rangeio_allow(place, size) ((void)0)
#endif

#ifdef RANGEIO_DEBUG
#define RANGEIO_IS_DEBUG 1
#else
#define RANGEIO_IS_DEBUG 0
#endif

/* Set once, when the module is imported. */
static int rangeio_poison;
static unsigned char rangeio_allocated_byte, rangeio_freed_byte;

/* Mark memory as freed. */
static inline void rangeio_mark_freed(char *place, size_t size)
{
    if (rangeio_poison) {
        rangeio_allow(place, size);
        memset(place, rangeio_freed_byte, size);
    }
    rangeio_forbid(place, size);
}

/* Allow the use of the first `size` of `whole` bytes of a block. -1 if it was written to after it was freed. */
static inline int rangeio_mark_allocated(char *place, size_t size, size_t whole)
{
    rangeio_allow(place, whole);
    if (rangeio_poison) {
        if ((unsigned char)place[0] != rangeio_freed_byte || memcmp(place, place + 1, whole - 1) != 0)
            return -1;
        memset(place, rangeio_allocated_byte, whole);
    }
    rangeio_forbid(place + size, whole - size);
    return 0;
}

#endif
