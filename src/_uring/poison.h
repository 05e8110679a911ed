/* Marks of memory that is handed out and given back, so that who reads what nobody wrote, or writes to what is nobody's, is
 * seen: patterns in debug builds and with RANGEIO_POISON=1, and AddressSanitizer's own marks where it is built in.
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
static unsigned char rangeio_handed_out, rangeio_given_back;

/* Nobody uses it from now on. */
static inline void rangeio_mark_given(char *place, size_t size)
{
    if (rangeio_poison) {
        rangeio_allow(place, size);
        memset(place, rangeio_given_back, size);
    }
    rangeio_forbid(place, size);
}

/* The first `size` bytes of a block of `whole` may be used. -1 if somebody wrote to it after it had been given back. */
static inline int rangeio_mark_taken(char *place, size_t size, size_t whole)
{
    rangeio_allow(place, whole);
    if (rangeio_poison) {
        if ((unsigned char)place[0] != rangeio_given_back || memcmp(place, place + 1, whole - 1) != 0)
            return -1;
        memset(place, rangeio_handed_out, whole);
    }
    rangeio_forbid(place + size, whole - size);
    return 0;
}

#endif
