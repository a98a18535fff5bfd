/* Loaded before the C library (LD_PRELOAD): one of so many calls fails, as disks and networks do.

   Only files below FAULTS_UNDER, and sockets. Nothing fails before faults_arm(seed, every), which also
   returns the count so far; every = 0 disarms. Calls that failed are counted by kind (faults_count). */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN, WRITE, FSYNC, RENAME, SOCKET, KINDS };

static unsigned long state = 1;
static int every = 0;
static long counts[KINDS];

void faults_arm(unsigned long seed, int one_of) { state = seed * 2654435761UL + 1; every = one_of; }
long faults_count(int kind) { return counts[kind]; }

static unsigned long draw(void) {
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return state >> 11;
}

static int is_below(const char *path) {
    const char *under = getenv("FAULTS_UNDER");
    return under && path && strncmp(path, under, strlen(under)) == 0;
}

static int leads(int fd, int to_socket) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return to_socket ? strncmp(path, "socket:", 7) == 0 : is_below(path);
}

static int fails(int kind, int error) {
    if (!every || draw() % every) return 0;
    counts[kind]++;
    errno = error;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPENING(name)                                                                  \
    int name(const char *path, int flags, ...) {                                       \
        va_list rest;                                                                  \
        va_start(rest, flags);                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;        \
        va_end(rest);                                                                  \
        int writes = (flags & O_ACCMODE) != O_RDONLY;                                  \
        if (every && is_below(path) && fails(OPEN, writes ? ENOSPC : EIO)) return -1;  \
        return REAL(name)(path, flags, mode);                                          \
    }
OPENING(open)
OPENING(open64)

ssize_t write(int fd, const void *data, size_t size) {
    if (every && leads(fd, 0)) {
        if (fails(WRITE, draw() % 2 ? ENOSPC : EIO)) return -1;
        if (size > 1 && draw() % 4 == 0) size /= 2;  /* may always happen, and is no fault */
    }
    return REAL(write)(fd, data, size);
}

int fsync(int fd) { return every && leads(fd, 0) && fails(FSYNC, EIO) ? -1 : REAL(fsync)(fd); }

int rename(const char *from, const char *to) {
    return every && is_below(to) && fails(RENAME, EIO) ? -1 : REAL(rename)(from, to);
}

int connect(int fd, const struct sockaddr *to, socklen_t size) {
    return every && leads(fd, 1) && fails(SOCKET, ECONNREFUSED) ? -1 : REAL(connect)(fd, to, size);
}

ssize_t recv(int fd, void *data, size_t size, int flags) {
    return every && leads(fd, 1) && fails(SOCKET, ECONNRESET) ? -1 : REAL(recv)(fd, data, size, flags);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    return every && leads(fd, 1) && fails(SOCKET, ECONNRESET) ? -1 : REAL(send)(fd, data, size, flags);
}
