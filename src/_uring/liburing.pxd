"""liburing, loaded at run time: the declarations of abi.h, and the table of functions."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "abi.h" nogil:
    cdef struct abi_sqe:
        uint8_t opcode
        uint8_t flags
        int32_t fd
        uint64_t off
        uint64_t addr
        uint32_t len
        uint64_t user_data
        uint16_t buf_index

    cdef struct abi_cqe:
        uint64_t user_data
        int32_t res

    cdef struct abi_params:
        uint32_t cq_entries
        uint32_t flags
        uint32_t features

    cdef struct abi_cq:
        uint32_t ring_entries

    cdef struct abi_sq:
        uint32_t ring_entries

    cdef struct abi_ring:
        abi_sq sq
        abi_cq cq
        uint32_t flags
        int ring_fd
        int enter_ring_fd
        uint32_t features

    cdef struct abi_timespec:
        int64_t tv_sec
        long long tv_nsec

    cdef enum:
        ABI_OP_NOP
        ABI_OP_READ_FIXED
        ABI_OP_READ
        ABI_SQE_FIXED_FILE
        ABI_SETUP_CQSIZE
        ABI_SETUP_CLAMP
        ABI_SETUP_COOP_TASKRUN
        ABI_SETUP_SINGLE_ISSUER
        ABI_SETUP_DEFER_TASKRUN
        ABI_FEAT_NODROP
        ABI_FEAT_EXT_ARG

    cdef struct abi_functions:
        int (*queue_init_params)(unsigned, abi_ring *, abi_params *) noexcept nogil
        void (*queue_exit)(abi_ring *) noexcept nogil
        int (*submit)(abi_ring *) noexcept nogil
        int (*submit_and_wait_timeout)(abi_ring *, abi_cqe **, unsigned, abi_timespec *, void *) noexcept nogil
        int (*ring_dontfork)(abi_ring *) noexcept nogil
        int (*register_files)(abi_ring *, const int *, unsigned) noexcept nogil
        int (*register_files_update)(abi_ring *, unsigned, const int *, unsigned) noexcept nogil
        int (*register_buffers)(abi_ring *, const void *, unsigned) noexcept nogil
        int (*unregister_buffers)(abi_ring *) noexcept nogil

    abi_sqe *abi_get_sqe(abi_ring *)
    uint32_t abi_sq_pending(abi_ring *)
    abi_sqe *abi_sq_at(abi_ring *, uint32_t)
    void abi_sq_clear(abi_ring *)
    uint32_t abi_cq_ready(abi_ring *)
    abi_cqe *abi_cq_peek(abi_ring *, uint32_t)
    void abi_cq_advance(abi_ring *, uint32_t)


cdef class Library:
    """One loaded liburing that has passed its self-test."""

    cdef abi_functions call
    cdef readonly str path
    cdef void *handle
    cdef str refused_call
    cdef readonly uint32_t features
    cdef readonly uint32_t batch_flags
    cdef readonly uint32_t loop_flags

    @staticmethod
    cdef Library open(str path)
    cdef void *symbol(self, bytes name) except NULL
    cdef int resolve(self) except -1
    cdef int prove(self) except -1
    cdef uint32_t first_accepted(self, list choices) except? 0xffffffff
    cdef int try_nop(self, uint32_t flags)


cdef str explain(int errno, str call)
