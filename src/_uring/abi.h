/* The parts of the kernel's and liburing's interface that are fixed by ABI.
 *
 * The kernel's structures (io_uring_enter(2), linux/io_uring.h) and liburing's `struct io_uring` are declared
 * here rather than included: the core builds with no header beyond libc's, on kernels older than the flags
 * it uses, and the liburing that is loaded at run time was compiled elsewhere. The layouts are asserted.
 * Names have the prefix `abi_` so that they do not collide with a system <liburing.h>.
 *
 * `sq.array` is never used: liburing builds newer than 2.6 turn on IORING_SETUP_NO_SQARRAY, and then
 * the pointer is NULL. io_uring_submit*() publish the entries.
 */
#ifndef RANGEIO_ABI_H
#define RANGEIO_ABI_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct abi_sqe {
    uint8_t opcode;
    uint8_t flags;
    uint16_t ioprio;
    int32_t fd;
    uint64_t off;
    uint64_t addr;
    uint32_t len;
    uint32_t rw_flags;
    uint64_t user_data;
    uint16_t buf_index;
    uint16_t personality;
    uint32_t file_index;
    uint64_t addr3;
    uint64_t pad;
};

struct abi_cqe {
    uint64_t user_data;
    int32_t res;
    uint32_t flags;
};

struct abi_params {
    uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, resv[3];
    uint64_t sq_off[5];
    uint64_t cq_off[5];
};

struct abi_sq {
    uint32_t *khead, *ktail, *kring_mask, *kring_entries, *kflags, *kdropped, *array;
    struct abi_sqe *sqes;
    uint32_t sqe_head, sqe_tail;
    size_t ring_sz;
    void *ring_ptr;
    uint32_t ring_mask, ring_entries;
    uint32_t pad[2];
};

struct abi_cq {
    uint32_t *khead, *ktail, *kring_mask, *kring_entries, *kflags, *koverflow;
    struct abi_cqe *cqes;
    size_t ring_sz;
    void *ring_ptr;
    uint32_t ring_mask, ring_entries;
    uint32_t pad[2];
};

struct abi_ring {
    struct abi_sq sq;
    struct abi_cq cq;
    uint32_t flags;
    int ring_fd;
    uint32_t features;
    int enter_ring_fd;
    uint8_t int_flags;
    uint8_t pad[3];
    uint32_t pad2;
};

_Static_assert(sizeof(struct abi_sqe) == 64, "io_uring_sqe");
_Static_assert(sizeof(struct abi_cqe) == 16, "io_uring_cqe");
_Static_assert(sizeof(struct abi_params) == 120, "io_uring_params");
_Static_assert(sizeof(struct abi_ring) == 216, "liburing's struct io_uring (2.0 to 2.14)");

struct abi_timespec {
    int64_t tv_sec;
    long long tv_nsec;
};

enum {
    ABI_OP_NOP = 0,
    ABI_OP_READ_FIXED = 4,
    ABI_OP_READ = 22,
    ABI_SQE_FIXED_FILE = 1u << 0,
    ABI_SETUP_CQSIZE = 1u << 3,
    ABI_SETUP_CLAMP = 1u << 4,
    ABI_SETUP_COOP_TASKRUN = 1u << 8,   /* 5.19 */
    ABI_SETUP_SINGLE_ISSUER = 1u << 12, /* 6.0 */
    ABI_SETUP_DEFER_TASKRUN = 1u << 13, /* 6.1 */
    ABI_FEAT_NODROP = 1u << 1,          /* 5.5 */
    ABI_FEAT_EXT_ARG = 1u << 8,         /* 5.11 */
};

/* The functions of liburing that are not inline in its header, resolved with dlsym. */
struct abi_functions {
    int (*queue_init_params)(unsigned entries, struct abi_ring *ring, struct abi_params *params);
    void (*queue_exit)(struct abi_ring *ring);
    int (*submit)(struct abi_ring *ring);
    int (*submit_and_wait_timeout)(struct abi_ring *ring, struct abi_cqe **cqe, unsigned wait_nr,
                                   struct abi_timespec *ts, void *sigmask);
    int (*ring_dontfork)(struct abi_ring *ring);
    int (*register_files)(struct abi_ring *ring, const int *files, unsigned nr);
    int (*register_files_update)(struct abi_ring *ring, unsigned off, const int *files, unsigned nr);
    int (*register_buffers)(struct abi_ring *ring, const void *iovecs, unsigned nr);
    int (*unregister_buffers)(struct abi_ring *ring);
};

/* io_uring_get_sqe(). Without SQPOLL, only this side moves sqe_tail; the kernel moves khead. */
static inline struct abi_sqe *abi_get_sqe(struct abi_ring *ring)
{
    struct abi_sq *sq = &ring->sq;
    uint32_t head = atomic_load_explicit((_Atomic uint32_t *)sq->khead, memory_order_acquire);
    if (sq->sqe_tail - head >= sq->ring_entries)
        return NULL;
    struct abi_sqe *sqe = &sq->sqes[sq->sqe_tail++ & sq->ring_mask];
    *sqe = (struct abi_sqe){0};
    return sqe;
}

/* The number of entries not yet taken by the kernel, and the entry at an index among them. */
static inline uint32_t abi_sq_pending(struct abi_ring *ring)
{
    return ring->sq.sqe_tail - atomic_load_explicit((_Atomic uint32_t *)ring->sq.khead, memory_order_acquire);
}

static inline struct abi_sqe *abi_sq_at(struct abi_ring *ring, uint32_t index)
{
    uint32_t head = atomic_load_explicit((_Atomic uint32_t *)ring->sq.khead, memory_order_acquire);
    return &ring->sq.sqes[(head + index) & ring->sq.ring_mask];
}

/* Take back the entries that the kernel has not taken. The kernel reads the tail only during an enter, and liburing
 * submits the entries between its own two counters: reset all of them. */
static inline void abi_sq_clear(struct abi_ring *ring)
{
    struct abi_sq *sq = &ring->sq;
    uint32_t head = atomic_load_explicit((_Atomic uint32_t *)sq->khead, memory_order_acquire);
    sq->sqe_head = sq->sqe_tail = head;
    atomic_store_explicit((_Atomic uint32_t *)sq->ktail, head, memory_order_release);
}

/* Acquire pairs with the kernel's release of ktail: an entry is written before it is counted. */
static inline uint32_t abi_cq_ready(struct abi_ring *ring)
{
    return atomic_load_explicit((_Atomic uint32_t *)ring->cq.ktail, memory_order_acquire) - *ring->cq.khead;
}

static inline struct abi_cqe *abi_cq_peek(struct abi_ring *ring, uint32_t index)
{
    return &ring->cq.cqes[(*ring->cq.khead + index) & ring->cq.ring_mask];
}

/* Release: the kernel may overwrite the entries as soon as it sees the new head. */
static inline void abi_cq_advance(struct abi_ring *ring, uint32_t count)
{
    atomic_store_explicit((_Atomic uint32_t *)ring->cq.khead, *ring->cq.khead + count, memory_order_release);
}

#endif
