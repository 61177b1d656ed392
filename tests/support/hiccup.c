/* A file system that hiccups: preloaded (LD_PRELOAD), the first HICCUP_TIMES calls of the kind HICCUP_CALL (open, read, stat or list) on a path that ends with
 * HICCUP_PATH fail with the error number HICCUP_ERRNO. What has failed is counted, a byte each, in the file HICCUP_COUNT, over all processes. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int strikes(const char *call, const char *path)
{
	const char *where = getenv("HICCUP_PATH"), *calls = getenv("HICCUP_CALL"), *count = getenv("HICCUP_COUNT");
	const char *times = getenv("HICCUP_TIMES"), *number = getenv("HICCUP_ERRNO");
	if (!where || !calls || !count || !times || !number || !path || strcmp(calls, call))
		return 0;
	size_t length = strlen(path), end = strlen(where);
	if (length < end || strcmp(path + length - end, where))
		return 0;
	long fd = syscall(SYS_openat, AT_FDCWD, count, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0)
		return 0;
	long before = syscall(SYS_lseek, fd, 0, SEEK_END);
	int strike = before < atol(times);
	if (strike)
		syscall(SYS_write, fd, "x", 1);
	syscall(SYS_close, fd);
	if (strike)
		errno = atoi(number);
	return strike;
}

typedef int (*open_call)(const char *, int, ...);

static int opened(const char *name, const char *path, int flags, va_list more)
{
	mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
	if (strikes("open", path))
		return -1;
	return ((open_call)dlsym(RTLD_NEXT, name))(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list more;
	va_start(more, flags);
	int fd = opened("open", path, flags, more);
	va_end(more);
	return fd;
}

int open64(const char *path, int flags, ...)
{
	va_list more;
	va_start(more, flags);
	int fd = opened("open64", path, flags, more);
	va_end(more);
	return fd;
}

ssize_t read(int fd, void *bytes, size_t count)
{
	char link[64], path[PATH_MAX];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length > 0) {
		path[length] = 0;
		if (strikes("read", path))
			return -1;
	}
	return syscall(SYS_read, fd, bytes, count);
}

int statx(int fd, const char *restrict path, int flags, unsigned mask, struct statx *restrict found)
{
	if (strikes("stat", path))
		return -1;
	return syscall(SYS_statx, fd, path, flags, mask, found);
}

DIR *opendir(const char *path)
{
	if (strikes("list", path))
		return NULL;
	return ((DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir"))(path);
}
