/* Preloaded before libc: of all writes, truncations and syncs of files whose name contains FAIL_NAME, the FAIL_AT-th and every
 * later one fail with FAIL_ERRNO. FAIL_WRITES set: writes alone are counted and fail, as on a disk that is full. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long seen;

static int fails(int fd, int is_write)
{
    const char *name = getenv("FAIL_NAME"), *at = getenv("FAIL_AT"), *code = getenv("FAIL_ERRNO");
    char link[64], path[4096];
    ssize_t length;
    if (name == NULL || at == NULL || code == NULL || (!is_write && getenv("FAIL_WRITES") != NULL))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (strstr(path, name) == NULL)
        return 0;
    long now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST), wanted = atol(at);
    if (wanted > 0 && now >= wanted) {
        errno = atoi(code);
        return 1;
    }
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return fails(fd, 1) ? -1 : REAL(pwrite)(fd, bytes, count, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { return fails(fd, 1) ? -1 : REAL(pwrite64)(fd, bytes, count, at); }
ssize_t write(int fd, const void *bytes, size_t count) { return fails(fd, 1) ? -1 : REAL(write)(fd, bytes, count); }
int fsync(int fd) { return fails(fd, 0) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails(fd, 0) ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t length) { return fails(fd, 0) ? -1 : REAL(ftruncate)(fd, length); }
int ftruncate64(int fd, off64_t length) { return fails(fd, 0) ? -1 : REAL(ftruncate64)(fd, length); }
