"""Ranges under way over several connections, which are watched together by one epoll: all of it without the GIL."""

from libc.stdint cimport int64_t

from _uring.kernel cimport EPOLL_CTL_DEL, MSG_DONTWAIT, epoll_ctl, epoll_event, epoll_wait
from _uring.process cimport monotonic_ns
from _uring.transfer cimport DONE, UNUSUAL, WAITING, Transfer, prepare, receive, send

from _uring.records import MEASURED

cdef int64_t SAMPLED = MEASURED


cdef int work_on(Work *work, int timeout_ms) noexcept nogil:
    """DONE once nothing is under way, or, if they are taken one by one, something has landed; UNUSUAL; or LOOK."""
    cdef epoll_event[EVENTS] events
    cdef Slot *slot
    cdef int i, ready, found
    while work.busy:
        ready = epoll_wait(work.epoll, events, EVENTS, timeout_ms)
        if ready <= 0:
            return LOOK
        for i in range(ready):
            slot = &work.slots[events[i].data.u32]
            if slot.index < 0:  # closed, or something that nobody asked for
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
    """Note how long it took; of many the latest."""
    cdef Sample *made = &work.samples[work.sampled % SAMPLES]
    made.waited, made.received, made.length = at.head_ns - at.sent_ns, at.since_ns - at.head_ns, at.length
    work.sampled += 1


cdef bint next_on(Work *work, Slot *slot) noexcept nogil:
    """Begin the next range on a connection that is free; whether its request was taken."""
    cdef Py_ssize_t index = work.begun
    cdef Transfer *at = &slot.transfer
    work.begun += 1
    work.busy += 1
    slot.index = index
    prepare(at, work.request, at.fd, at.space, work.starts[index], work.lengths[index], work.places[index])
    return send(at)
