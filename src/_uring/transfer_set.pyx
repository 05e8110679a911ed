"""Ranges in flight on several connections, which one epoll watches. All of this runs without the GIL."""

from libc.stdint cimport int64_t

from _uring.kernel cimport EPOLL_CTL_DEL, MSG_DONTWAIT, epoll_ctl, epoll_event, epoll_wait
from _uring.process cimport monotonic_ns
from _uring.transfer cimport DONE, UNUSUAL, WAITING, Transfer, prepare, receive, send

from _uring.records import MEASURED

cdef int64_t SAMPLED = MEASURED


cdef int work_on(Work *work, int timeout_ms) noexcept nogil:
    """DONE once nothing is in flight or, if ranges are taken one at a time, one is complete. Otherwise UNUSUAL or LOOK."""
    cdef epoll_event[EVENTS] events
    cdef Slot *slot
    cdef int i, ready, found
    while work.busy:
        ready = epoll_wait(work.epoll, events, EVENTS, timeout_ms)
        if ready <= 0:
            return LOOK
        for i in range(ready):
            slot = &work.slots[events[i].data.u32]
            if slot.index < 0:  # closed, or unexpected bytes
                slot.index = GONE
                epoll_ctl(work.epoll, EPOLL_CTL_DEL, slot.transfer.fd, NULL)
                continue
            found = receive(&slot.transfer, MSG_DONTWAIT)
            if found == WAITING:
                continue
            if found == DONE:
                if work.landed != NULL:
                    work.landed[work.landings] = slot.index
                    work.landings += 1
                if slot.transfer.length >= SAMPLED:
                    sample(work, &slot.transfer)
                slot.index = GONE if slot.transfer.surplus else IDLE
                work.busy -= 1
                if slot.index == GONE or work.landed != NULL or work.begun == work.placed or next_on(work, slot):
                    continue
            return UNUSUAL
        if work.landings:
            return DONE
        if monotonic_ns() > work.look_ns or (work.begun + EVENTS > work.placed and work.placed < work.ranges):
            return LOOK
    return DONE


cdef inline void sample(Work *work, const Transfer *at) noexcept nogil:
    """Record the duration of a response; only the latest SAMPLES are kept."""
    cdef Sample *made = &work.samples[work.sampled % SAMPLES]
    made.waited, made.received, made.length = at.head_ns - at.sent_ns, at.since_ns - at.head_ns, at.length
    work.sampled += 1


cdef bint next_on(Work *work, Slot *slot) noexcept nogil:
    """Start the next range on an idle connection. False if its request was not sent completely."""
    cdef Py_ssize_t index = work.begun
    cdef Transfer *at = &slot.transfer
    work.begun += 1
    work.busy += 1
    slot.index = index
    prepare(at, work.request, at.fd, at.space, work.starts[index], work.lengths[index], work.places[index])
    return send(at)
