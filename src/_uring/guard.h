/* Copies out of a mapping of a file that may be cut short meanwhile.
 *
 * Who touches a mapped page behind the end of its file is sent SIGBUS (mmap(2)). A copy is guarded: it leaves a mark of
 * its thread and of the mapping, and a fault of that thread within that mapping ends the copy there. Any other SIGBUS is
 * passed on to whatever was installed before, or ends the process as it would have.
 *
 * The marks lie in static memory and are taken by compare-and-swap: no thread-local storage, whose first use by a thread
 * may allocate, which a signal handler must not.
 */
#ifndef RANGEIO_GUARD_H
#define RANGEIO_GUARD_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

struct rangeio_piece {
    char *to;
    const char *from;
    size_t length;
};

/* Copies at one time. Who finds no place copies nothing, and its bytes are read by system calls. */
#define RANGEIO_GUARDS 64

static struct rangeio_guard {
    pthread_t thread; /* 0: free. No thread of Linux has 0. */
    const char *low, *high;
    volatile size_t done;
    sigjmp_buf escape;
} rangeio_guards[RANGEIO_GUARDS];

static struct sigaction rangeio_before; /* what was installed before; set before ours is */
static int rangeio_before_used;         /* it was to be called once only (SA_RESETHAND), and has been */
static int rangeio_installed;

/* The default action: the process ends. */
static void rangeio_end_by(int number, int code)
{
    struct sigaction end;
    memset(&end, 0, sizeof end);
    end.sa_handler = SIG_DFL;
    sigaction(number, &end, NULL);
    if (code <= 0 || code == BUS_MCEERR_AO)
        raise(number); /* it was sent; a fault happens again when this returns */
}

static void rangeio_pass_on(int number, siginfo_t *info, void *context)
{
    int by_info = rangeio_before.sa_flags & SA_SIGINFO;
    int is_default = rangeio_before_used || (!by_info && rangeio_before.sa_handler == SIG_DFL);
    if (!is_default && !by_info && rangeio_before.sa_handler == SIG_IGN) {
        if (info->si_code <= 0)
            return;
        is_default = 1; /* a fault cannot be ignored (sigaction(2)) */
    }
    if (is_default) {
        rangeio_end_by(number, info->si_code);
        return;
    }
    if (rangeio_before.sa_flags & SA_RESETHAND)
        rangeio_before_used = 1;
    if (by_info)
        rangeio_before.sa_sigaction(number, info, context);
    else
        rangeio_before.sa_handler(number);
}

static void rangeio_on_bus_error(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    pthread_t self = pthread_self();
    const char *place = info->si_addr;
    for (int i = 0; info->si_code > 0 && i < RANGEIO_GUARDS; i++) {
        struct rangeio_guard *guard = &rangeio_guards[i];
        if (__atomic_load_n(&guard->thread, __ATOMIC_ACQUIRE) == self && place >= guard->low && place < guard->high)
            siglongjmp(guard->escape, 1);
    }
    rangeio_pass_on(number, info, context);
    errno = saved;
}

/* In a forked child the threads that were copying are not there, and their names may be given to others. */
static void rangeio_forget_guards(void)
{
    for (int i = 0; i < RANGEIO_GUARDS; i++)
        __atomic_store_n(&rangeio_guards[i].thread, 0, __ATOMIC_RELEASE);
}

/* Whether a SIGBUS comes to us; installs the handler at the first call. Not for two threads at once. */
static int rangeio_guard_works(void)
{
    struct sigaction ours, now;
    if (!rangeio_installed) {
        if (sigaction(SIGBUS, NULL, &rangeio_before) != 0)
            return 0;
        memset(&ours, 0, sizeof ours);
        ours.sa_sigaction = rangeio_on_bus_error;
        ours.sa_mask = rangeio_before.sa_mask;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK | (rangeio_before.sa_flags & (SA_RESTART | SA_NODEFER));
        if (pthread_atfork(NULL, NULL, rangeio_forget_guards) != 0 || sigaction(SIGBUS, &ours, NULL) != 0)
            return 0;
        rangeio_installed = 1;
    }
    return sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO)
        && now.sa_sigaction == rangeio_on_bus_error;
}

static struct rangeio_guard *rangeio_take_guard(void)
{
    pthread_t self = pthread_self();
    for (int i = 0; i < RANGEIO_GUARDS; i++) {
        pthread_t nobody = 0;
        if (__atomic_compare_exchange_n(&rangeio_guards[i].thread, &nobody, self, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return &rangeio_guards[i];
    }
    return NULL;
}

/* The first line of a record brings its page-table entry and tells the processor's own prefetcher where to go on: asked
 * for some records ahead, they save a third of the time where records lie in memory and not in a cache. */
#define RANGEIO_AHEAD 4
#define RANGEIO_LINE 64

static __attribute__((noinline)) void rangeio_copy(
    const struct rangeio_piece *pieces, size_t count, volatile size_t *done)
{
    for (size_t i = 0; i < count; i++) {
        if (i + RANGEIO_AHEAD < count)
            __builtin_prefetch(pieces[i + RANGEIO_AHEAD].from);
        if (i + 1 < count)
            for (size_t line = 1; line < 4 && line * RANGEIO_LINE < pieces[i + 1].length; line++)
                __builtin_prefetch(pieces[i + 1].from + line * RANGEIO_LINE);
        memcpy(pieces[i].to, pieces[i].from, pieces[i].length);
        *done = i + 1;
    }
}

/* How many pieces were copied, of a mapping that begins at `low`: all, or as many as lie before a fault. */
static size_t rangeio_copy_guarded(
    const struct rangeio_piece *pieces, size_t count, const char *low, size_t size)
{
    struct rangeio_guard *guard = rangeio_take_guard();
    sigset_t faults, before;
    size_t done;
    if (guard == NULL)
        return 0;
    guard->low = low;
    guard->high = low + size;
    guard->done = 0;
    sigemptyset(&faults);
    sigaddset(&faults, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &faults, &before); /* a fault that is blocked ends the process */
    if (sigsetjmp(guard->escape, 0) == 0)
        rangeio_copy(pieces, count, &guard->done);
    done = guard->done;
    if (done < count || sigismember(&before, SIGBUS))
        pthread_sigmask(SIG_SETMASK, &before, NULL); /* also what the handler had blocked when it was left */
    __atomic_store_n(&guard->thread, 0, __ATOMIC_RELEASE);
    return done;
}

/* Page faults of this thread that waited for a device. */
static long rangeio_major_faults(void)
{
#ifdef RUSAGE_THREAD
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) == 0)
        return usage.ru_majflt;
#endif
    return -1;
}

#endif
