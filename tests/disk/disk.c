/* A disk that can fail, for scripts/test-crashes: loaded into the server before libc (LD_PRELOAD).
 *
 * TEST_DISK names a folder. Whenever the server syncs its database or its log, the file as it is then is
 * copied there: what would be left after a power loss that takes everything that was never synced.
 * While that folder holds a file `full`, `broken` or `read-only`, writes and syncs fail as they do then. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static int ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* The name of the database or its log, if `fd` is one of them. */
static const char *file_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    if (length <= 0 || !getenv("TEST_DISK")) return NULL;
    path[length] = 0;
    if (!ends_with(path, ".db") && !ends_with(path, ".db-wal")) return NULL;
    return strrchr(path, '/') + 1;
}

static int there_is(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("TEST_DISK"), name);
    return access(path, F_OK) == 0;
}

/* Whether this write or sync must fail; sets errno. */
static int fails(int fd) {
    char path[4096];
    int before = errno;
    if (file_of(fd, path, sizeof path)) {
        if (there_is("full")) return errno = ENOSPC, 1;
        if (there_is("broken")) return errno = EIO, 1;
        if (there_is("read-only")) return errno = EROFS, 1;
    }
    errno = before;
    return 0;
}

static void keep(int fd) {
    char path[4096], kept[4200], partial[4300], buffer[65536];
    const char *name = file_of(fd, path, sizeof path);
    if (!name) return;
    pthread_mutex_lock(&one_at_a_time);
    snprintf(kept, sizeof kept, "%s/%s", getenv("TEST_DISK"), name);
    snprintf(partial, sizeof partial, "%s.partial", kept);
    int from = open(path, O_RDONLY), to = open(partial, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t length;
    while ((length = read(from, buffer, sizeof buffer)) > 0)
        if (syscall(SYS_write, to, buffer, length) != length) abort();
    if (from < 0 || to < 0 || length < 0) abort();
    close(from);
    close(to);
    rename(partial, kept);
    pthread_mutex_unlock(&one_at_a_time);
}

static int sync_with(long call, int fd) {
    if (fails(fd)) return -1;
    int done = (int)syscall(call, fd);
    if (done == 0) keep(fd);
    return done;
}

int fsync(int fd) { return sync_with(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_with(SYS_fdatasync, fd); }

ssize_t write(int fd, const void *buffer, size_t size) {
    return fails(fd) ? -1 : syscall(SYS_write, fd, buffer, size);
}
ssize_t pwrite(int fd, const void *buffer, size_t size, off_t at) {
    return fails(fd) ? -1 : syscall(SYS_pwrite64, fd, buffer, size, at);
}
ssize_t pwrite64(int fd, const void *buffer, size_t size, off64_t at) {
    return fails(fd) ? -1 : syscall(SYS_pwrite64, fd, buffer, size, at);
}
int ftruncate(int fd, off_t size) { return fails(fd) ? -1 : (int)syscall(SYS_ftruncate, fd, size); }
int ftruncate64(int fd, off64_t size) { return fails(fd) ? -1 : (int)syscall(SYS_ftruncate, fd, size); }
