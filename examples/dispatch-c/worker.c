/* A worker that is passed its connections, without any library: docs/dispatch-protocol.md.
 *
 *     cc -O2 -o worker worker.c
 *
 * Answers every request with its pid and closes. One process, one thread, epoll. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FDS = 253, QUESTION = 255, EVENTS = 64 };

static struct { uint64_t answered, taken, closed, lost; } report;
static int channel, epoll, open_now;

static void tell(void) {
    /* If there is no room, the next report says the same and more. */
    send(channel, &report, sizeof report, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static void end(int fd) {
    /* The manager may have its copy for a moment longer: without these two the client would see no
     * end, and epoll would go on about a descriptor that we no longer have. */
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
    shutdown(fd, SHUT_WR);
    close(fd);
    open_now--;
    report.closed++;
    tell();
}

static void answer(int fd) {
    char request[4096], text[256], body[64];
    ssize_t size = recv(fd, request, sizeof request, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size > 0) {
        int length = snprintf(body, sizeof body, "{\"pid\": %d, \"version\": \"c\"}\n", getpid());
        int all = snprintf(text, sizeof text,
                           "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                           "Content-Length: %d\r\nConnection: close\r\n\r\n%s", length, body);
        if (send(fd, text, all, MSG_NOSIGNAL) < all) perror("send");
    }
    end(fd);
}

/* Take one message; return 0 if nothing is there, -1 at the end of the channel. */
static int take(void) {
    unsigned char bytes[MAX_FDS];
    union { struct cmsghdr align; char space[CMSG_SPACE(MAX_FDS * sizeof(int))]; } control;
    struct iovec vector = {bytes, sizeof bytes};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1,
                             .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0) return errno == ECONNRESET; /* said once, when a manager died */
    if (size == 0) return -1;
    if (bytes[0] == QUESTION) {
        memcpy(&report.answered, bytes + 1, sizeof report.answered);
        tell();
        return 1;
    }
    ssize_t count = 0;
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    for (; part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (ssize_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            open_now++;
            watch(fd); /* bytes[i] is the number of its listener; we treat all alike */
        }
    }
    report.taken += size;
    if (count < size) { /* MSG_CTRUNC: the kernel dropped the others */
        fprintf(stderr, "%zd connections lost: no free descriptors\n", size - count);
        report.lost += size - count;
        tell();
    }
    return 1;
}

int main(void) {
    const char *number = getenv("SOCKMGR_DISPATCH_FD");
    if (!number) {
        fputs("nobody passes us connections: SOCKMGR_DISPATCH_FD is not set\n", stderr);
        return 2;
    }
    channel = atoi(number);
    fcntl(channel, F_SETFD, FD_CLOEXEC);

    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    int signals = signalfd(-1, &stop, SFD_CLOEXEC);

    epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(channel);
    watch(signals);
    int stopping = 0;
    while (!stopping || open_now) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd, state = 1;
            if (fd != channel && fd != signals) {
                answer(fd);
                continue;
            }
            while ((state = take()) > 0) {}
            if (fd == signals || state < 0) {
                stopping = 1;
                epoll_ctl(epoll, EPOLL_CTL_DEL, signals, NULL);
                epoll_ctl(epoll, EPOLL_CTL_DEL, channel, NULL);
            }
        }
    }
    return 0;
}
