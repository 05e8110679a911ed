/* Threads, locks and waits of the worker pool. */
#ifndef RANGEIO_THREADS_H
#define RANGEIO_THREADS_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <time.h>

static void rangeio_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* True when woken, false after `ms`. */
static int rangeio_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *lock, long ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return pthread_cond_timedwait(cond, lock, &until) != ETIMEDOUT;
}

#if defined(__x86_64__) || defined(__i386__)
#define rangeio_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define rangeio_relax() __asm__ volatile("yield")
#else
#define rangeio_relax() ((void)0)
#endif

/* Whether this thread, and so also the caller, may run on more than one CPU now. */
static int rangeio_is_multicore(void)
{
#ifdef CPU_COUNT
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set) > 1;
#endif
    return 0;
}

static int rangeio_past(const struct timespec *begun, long ns)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - begun->tv_sec) * 1000000000L + now.tv_nsec - begun->tv_nsec > ns;
}

/* Busy-wait until `*place` is not NULL, at most `ns`. */
static void rangeio_linger_for(void *place, long ns)
{
    struct timespec begun;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do
        for (int i = 0; i < 16; i++) {
            if (__atomic_load_n((void **)place, __ATOMIC_RELAXED) != NULL) return;
            rangeio_relax();
        }
    while (!rangeio_past(&begun, ns));
}

/* Busy-wait while `*count` is not 0, at most `ns`. */
static void rangeio_linger_while(int *count, long ns)
{
    struct timespec begun;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do
        for (int i = 0; i < 16; i++) {
            if (__atomic_load_n(count, __ATOMIC_RELAXED) == 0) return;
            rangeio_relax();
        }
    while (!rangeio_past(&begun, ns));
}

/* Start a detached thread with a small stack and all signals blocked: Ctrl-C must reach a thread that runs Python. */
static int rangeio_spawn(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    int result;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    result = pthread_create(&thread, &attributes, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return result;
}

#define rangeio_claim(counter, grain) __atomic_fetch_add(counter, grain, __ATOMIC_ACQ_REL)
#define rangeio_load(counter) __atomic_load_n(counter, __ATOMIC_ACQUIRE)
#define rangeio_store(counter, value) __atomic_store_n(counter, value, __ATOMIC_RELEASE)

#endif
