/* A clock that runs FACTOR times faster for the programs that preload this library, and is the same clock for all of
 * them: FASTCLOCK="FACTOR:BASE_REALTIME_NS:BASE_MONOTONIC_NS" (the moment from which on it runs fast).
 *
 * Scaled: what programs read (clock_gettime, gettimeofday, time), how long they wait (sleeps, poll, select, epoll,
 * semaphores, condition variables, futex through syscall()), and the times of files (stat, statx, utimensat): a file
 * written at a moment of the real clock shows the fast clock's reading of that moment. Times before the base are as
 * they are. Debian 12's libfaketime cannot do this: no common base without its wrapper, no statx, no sem_clockwait
 * (which is how Python waits).
 *
 * Not scaled: CPU clocks, timerfd, interval timers, direct system calls, statically linked programs, and whatever
 * systemd itself says (its time stamps are the real clock's, so have the base no earlier than a unit's start). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define TIMES struct timespec

static int64_t factor = 1, base_real, base_mono;

__attribute__((constructor)) static void begin(void)
{
    const char *set = getenv("FASTCLOCK");
    long long f, real, mono;
    if (set && sscanf(set, "%lld:%lld:%lld", &f, &real, &mono) == 3 && f >= 1 && f <= 1000)
        factor = f, base_real = real, base_mono = mono;
}

/* Looked up at each first use: constructors of other libraries may come before ours. */
#define REAL(ret, name, ...)                                     \
    static ret (*real_##name)(__VA_ARGS__);                      \
    if (!real_##name) *(void **)&real_##name = next(#name)

static void *next(const char *name)
{
    /* Without a version the oldest one may be found, which is another structure for condition variables. */
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    return found ? found : dlsym(RTLD_NEXT, name);
}

static int64_t ns(const TIMES *t) { return t->tv_sec * SECOND + t->tv_nsec; }
static TIMES ts(int64_t n) { return (TIMES){n / SECOND, n % SECOND}; }
static int64_t fast(int64_t t, int64_t base) { return t > base ? base + factor * (t - base) : t; }
static int64_t slow(int64_t t, int64_t base) { return t > base ? base + (t - base) / factor : t; }
static TIMES shorter(const TIMES *t) { return ts(ns(t) / factor); }

static int scaled(clockid_t id)
{
    return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE || id == CLOCK_MONOTONIC ||
           id == CLOCK_MONOTONIC_COARSE || id == CLOCK_MONOTONIC_RAW || id == CLOCK_BOOTTIME;
}
static int64_t base_of(clockid_t id)
{
    return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE ? base_real : base_mono;
}
/* For a deadline whose clock is not told: seconds since 1970 are far more than those since boot. */
static TIMES deadline(const TIMES *t) { return ts(slow(ns(t), ns(t) > base_real / 2 ? base_real : base_mono)); }

/* ---- what time it is ---- */

int clock_gettime(clockid_t id, TIMES *out)
{
    REAL(int, clock_gettime, clockid_t, TIMES *);
    int r = real_clock_gettime(id, out);
    if (r == 0 && scaled(id)) *out = ts(fast(ns(out), base_of(id)));
    return r;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    (void)zone;
    TIMES t;
    clock_gettime(CLOCK_REALTIME, &t);
    *out = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
    return 0;
}
time_t time(time_t *out)
{
    TIMES t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}

/* ---- how long to wait ---- */

int clock_nanosleep(clockid_t id, int flags, const TIMES *want, TIMES *left)
{
    REAL(int, clock_nanosleep, clockid_t, int, const TIMES *, TIMES *);
    if (!scaled(id)) return real_clock_nanosleep(id, flags, want, left);
    TIMES t = flags & TIMER_ABSTIME ? ts(slow(ns(want), base_of(id))) : shorter(want);
    int r = real_clock_nanosleep(id, flags, &t, left);
    if (r == EINTR && left && !(flags & TIMER_ABSTIME)) *left = ts(ns(left) * factor);
    return r;
}
int nanosleep(const TIMES *want, TIMES *left)
{
    int r = clock_nanosleep(CLOCK_MONOTONIC, 0, want, left);
    if (r == 0) return 0;
    errno = r;
    return -1;
}
int usleep(useconds_t us) { TIMES t = ts(us * 1000LL); return nanosleep(&t, NULL); }
unsigned sleep(unsigned s) { TIMES t = {s, 0}, left = {0, 0}; return nanosleep(&t, &left) ? left.tv_sec : 0; }

/* A wait of some milliseconds stays one, so that nobody spins. */
static int ms_shorter(int ms) { return ms <= 0 ? ms : (int)((ms + factor - 1) / factor); }

int poll(struct pollfd *fds, nfds_t n, int ms)
{
    REAL(int, poll, struct pollfd *, nfds_t, int);
    return real_poll(fds, n, ms_shorter(ms));
}
int ppoll(struct pollfd *fds, nfds_t n, const TIMES *want, const sigset_t *mask)
{
    REAL(int, ppoll, struct pollfd *, nfds_t, const TIMES *, const sigset_t *);
    TIMES t;
    if (want) t = shorter(want);
    return real_ppoll(fds, n, want ? &t : NULL, mask);
}
int epoll_wait(int fd, struct epoll_event *events, int n, int ms)
{
    REAL(int, epoll_wait, int, struct epoll_event *, int, int);
    return real_epoll_wait(fd, events, n, ms_shorter(ms));
}
int epoll_pwait(int fd, struct epoll_event *events, int n, int ms, const sigset_t *mask)
{
    REAL(int, epoll_pwait, int, struct epoll_event *, int, int, const sigset_t *);
    return real_epoll_pwait(fd, events, n, ms_shorter(ms), mask);
}
int select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *want)
{
    REAL(int, select, int, fd_set *, fd_set *, fd_set *, struct timeval *);
    if (!want) return real_select(n, r, w, e, NULL);
    int64_t us = (want->tv_sec * 1000000LL + want->tv_usec) / factor;
    struct timeval t = {us / 1000000, us % 1000000};
    return real_select(n, r, w, e, &t);
}
int pselect(int n, fd_set *r, fd_set *w, fd_set *e, const TIMES *want, const sigset_t *mask)
{
    REAL(int, pselect, int, fd_set *, fd_set *, fd_set *, const TIMES *, const sigset_t *);
    TIMES t;
    if (want) t = shorter(want);
    return real_pselect(n, r, w, e, want ? &t : NULL, mask);
}
int sem_timedwait(sem_t *sem, const TIMES *until)
{
    REAL(int, sem_timedwait, sem_t *, const TIMES *);
    TIMES t = ts(slow(ns(until), base_real));
    return real_sem_timedwait(sem, &t);
}
int sem_clockwait(sem_t *sem, clockid_t id, const TIMES *until)
{
    REAL(int, sem_clockwait, sem_t *, clockid_t, const TIMES *);
    TIMES t = ts(slow(ns(until), base_of(id)));
    return real_sem_clockwait(sem, id, &t);
}
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const TIMES *until)
{
    REAL(int, pthread_cond_timedwait, pthread_cond_t *, pthread_mutex_t *, const TIMES *);
    TIMES t = deadline(until);
    return real_pthread_cond_timedwait(cond, mutex, &t);
}
int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t id, const TIMES *until)
{
    REAL(int, pthread_cond_clockwait, pthread_cond_t *, pthread_mutex_t *, clockid_t, const TIMES *);
    TIMES t = ts(slow(ns(until), base_of(id)));
    return real_pthread_cond_clockwait(cond, mutex, id, &t);
}

static void file_times(struct statx *st)
{
    struct statx_timestamp *all[] = {&st->stx_atime, &st->stx_btime, &st->stx_ctime, &st->stx_mtime};
    for (unsigned i = 0; i < 4; i++) {
        TIMES t = ts(fast(all[i]->tv_sec * SECOND + all[i]->tv_nsec, base_real));
        all[i]->tv_sec = t.tv_sec, all[i]->tv_nsec = t.tv_nsec;
    }
}

/* Rust waits by futex, and asks for statx, through this. */
long syscall(long number, ...)
{
    REAL(long, syscall, long, ...);
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(args, long);
    va_end(args);
    TIMES t;
    const TIMES *want = (const TIMES *)a[3];
    if (number == SYS_futex && want) {
        int op = a[1] & FUTEX_CMD_MASK;
        if (op == FUTEX_WAIT_BITSET) t = deadline(want), a[3] = (long)&t;
        if (op == FUTEX_WAIT) t = shorter(want), a[3] = (long)&t;
    }
    long r = real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_statx && r == 0 && a[4]) file_times((struct statx *)a[4]);
    return r;
}

/* ---- when a file was written ---- */

int statx(int dir, const char *restrict path, int flags, unsigned mask, struct statx *restrict st)
{
    REAL(int, statx, int, const char *, int, unsigned, struct statx *);
    int r = real_statx(dir, path, flags, mask, st);
    if (r == 0) file_times(st);
    return r;
}

static void stat_times(struct stat *st)
{
    TIMES *all[] = {&st->st_atim, &st->st_mtim, &st->st_ctim};
    for (unsigned i = 0; i < 3; i++) *all[i] = ts(fast(ns(all[i]), base_real));
}
/* On 64-bit Linux `struct stat64` is the same structure. */
#define STAT(name, params, ...)                                  \
    int name params                                              \
    {                                                            \
        REAL(int, name, );                                       \
        int r = ((int(*) params)(void *)real_##name)(__VA_ARGS__); \
        if (r == 0) stat_times((struct stat *)st);               \
        return r;                                                \
    }
STAT(stat, (const char *restrict path, struct stat *restrict st), path, st)
STAT(lstat, (const char *restrict path, struct stat *restrict st), path, st)
STAT(fstat, (int fd, struct stat *st), fd, st)
STAT(fstatat, (int dir, const char *restrict path, struct stat *restrict st, int flags), dir, path, st, flags)
STAT(stat64, (const char *restrict path, struct stat64 *restrict st), path, st)
STAT(lstat64, (const char *restrict path, struct stat64 *restrict st), path, st)
STAT(fstat64, (int fd, struct stat64 *st), fd, st)
STAT(fstatat64, (int dir, const char *restrict path, struct stat64 *restrict st, int flags), dir, path, st, flags)

static const TIMES *set_times(const TIMES in[2], TIMES out[2])
{
    if (!in) return NULL;
    for (int i = 0; i < 2; i++)
        out[i] = in[i].tv_nsec == UTIME_NOW || in[i].tv_nsec == UTIME_OMIT ? in[i] : ts(slow(ns(&in[i]), base_real));
    return out;
}
int utimensat(int dir, const char *path, const TIMES in[2], int flags)
{
    REAL(int, utimensat, int, const char *, const TIMES[2], int);
    TIMES t[2];
    return real_utimensat(dir, path, set_times(in, t), flags);
}
int futimens(int fd, const TIMES in[2])
{
    REAL(int, futimens, int, const TIMES[2]);
    TIMES t[2];
    return real_futimens(fd, set_times(in, t));
}
