/* A disk that turned read-only under a running program: preloaded, so that the program stays as it is.
 *
 * While the file named by $SICKDISK exists, every write to the file system of the directory $SICKDISK_DIR fails with
 * EROFS, as after an ext4 error with errors=remount-ro: writes, truncations, new names, and opening for writing. What is
 * open stays open, reading goes on. A real remount is refused while a file is open for writing, so it cannot show this.
 *
 * It catches what goes through libc. A program that asks the kernel by itself is not touched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_sick(void) {
    const char *control = getenv("SICKDISK");
    int before = errno;
    int sick = control && access(control, F_OK) == 0;
    errno = before;
    return sick;
}

/* Whether the descriptor is on the sick file system. */
static int sick_fd(int fd) {
    const char *dir = getenv("SICKDISK_DIR");
    struct stat of, there;
    if (!dir || !is_sick()) return 0;
    int before = errno;
    int sick = fstat(fd, &of) == 0 && stat(dir, &there) == 0 && S_ISREG(of.st_mode) && of.st_dev == there.st_dev;
    errno = before;
    return sick;
}

static int sick_path(const char *path) {
    const char *dir = getenv("SICKDISK_DIR");
    return dir && path && is_sick() && strncmp(path, dir, strlen(dir)) == 0;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE(condition) do { if (condition) { errno = EROFS; return -1; } } while (0)

static int writes(int flags) {
    return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) != 0;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) {
    MODE_OF(flags)
    REFUSE(writes(flags) && sick_path(path));
    return NEXT(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE_OF(flags)
    REFUSE(writes(flags) && sick_path(path));
    return NEXT(open64)(path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE_OF(flags)
    REFUSE(writes(flags) && sick_path(path));
    return NEXT(openat)(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE_OF(flags)
    REFUSE(writes(flags) && sick_path(path));
    return NEXT(openat64)(at, path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    REFUSE(sick_fd(fd));
    return NEXT(write)(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REFUSE(sick_fd(fd));
    return NEXT(writev)(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REFUSE(sick_fd(fd));
    return NEXT(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REFUSE(sick_fd(fd));
    return NEXT(pwrite64)(fd, bytes, count, at);
}

int ftruncate(int fd, off_t size) {
    REFUSE(sick_fd(fd));
    return NEXT(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size) {
    REFUSE(sick_fd(fd));
    return NEXT(ftruncate64)(fd, size);
}

int fallocate(int fd, int mode, off_t at, off_t size) {
    REFUSE(sick_fd(fd));
    return NEXT(fallocate)(fd, mode, at, size);
}

int posix_fallocate(int fd, off_t at, off_t size) {
    if (sick_fd(fd)) return EROFS;
    return NEXT(posix_fallocate)(fd, at, size);
}

int rename(const char *from, const char *to) {
    REFUSE(sick_path(to));
    return NEXT(rename)(from, to);
}

int unlink(const char *path) {
    REFUSE(sick_path(path));
    return NEXT(unlink)(path);
}

int mkdir(const char *path, mode_t mode) {
    REFUSE(sick_path(path));
    return NEXT(mkdir)(path, mode);
}
