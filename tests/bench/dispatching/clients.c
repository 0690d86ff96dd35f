/* Clients that connect, send the time, read how long they waited for a worker, and go.
 *
 *   clients PORT flood CONNECTIONS SECONDS    so many at a time, as fast as it goes
 *   clients PORT pace RATE SECONDS            so many a second, however long they take
 *
 * Prints: answered failed seconds p50 p99 (microseconds from connect(2) to a worker's hands).
 * In C, so that it takes as little as possible of the processors that it measures. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, MOST = 4000000, FILES = 65536 };

static struct sockaddr_in to;
static int epoll, alive;
static long answered, failed;
static uint32_t waits[MOST];
static uint64_t began[FILES]; /* 0: its time has been sent */

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void begin(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || fd >= FILES) {
        failed++;
        if (fd >= 0) close(fd);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u64 = (uint64_t)fd};
    began[fd] = now();
    if (connect(fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        failed++;
        close(fd);
        return;
    }
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    alive++;
}

static void go_on(int fd, uint32_t events) {
    if (began[fd] && (events & EPOLLOUT)) {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)fd};
        if (send(fd, &began[fd], sizeof began[fd], MSG_NOSIGNAL) == sizeof began[fd]) {
            began[fd] = 0;
            epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
            return;
        }
    }
    uint64_t wait = 0;
    if (recv(fd, &wait, sizeof wait, 0) == sizeof wait) {
        if (answered < MOST) waits[answered] = wait / 1000 > UINT32_MAX ? UINT32_MAX : wait / 1000;
        answered++;
    } else
        failed++;
    close(fd);
    alive--;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int flood = !strcmp(argv[2], "flood");
    long number = atol(argv[3]);
    double seconds = atof(argv[4]);
    to.sin_family = AF_INET;
    to.sin_port = htons(atoi(argv[1]));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    epoll = epoll_create1(0);

    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (!flood) {
        struct timespec each = {0, 1000000000 / number};
        struct itimerspec spec = {each, each};
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)timer};
        timerfd_settime(timer, 0, &spec, NULL);
        epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    }
    uint64_t start = now(), end = start + (uint64_t)(seconds * 1e9), given_up = end + 5000000000ull;
    struct epoll_event events[EVENTS];
    while (now() < end || (alive && now() < given_up)) {
        while (flood && now() < end && alive < number) begin();
        int count = epoll_wait(epoll, events, EVENTS, 10);
        for (int i = 0; i < count; i++) {
            int fd = (int)events[i].data.u64;
            if (fd != timer) {
                go_on(fd, events[i].events);
                continue;
            }
            uint64_t due = 0;
            if (read(timer, &due, sizeof due) == sizeof due && now() < end)
                while (due--) begin();
        }
    }
    failed += alive;
    long known = answered < MOST ? answered : MOST;
    qsort(waits, known, sizeof *waits, compare);
    printf("%ld %ld %.3f %u %u\n", answered, failed, (double)(now() - start) / 1e9,
           known ? waits[known / 2] : 0, known ? waits[known * 99 / 100] : 0);
    return 0;
}
