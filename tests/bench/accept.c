/* accept FD: answer each connection on FD and close it, until TERM. Nothing smaller serves. */
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void end(int number) {
    (void)number;
    _exit(0);
}

int main(int argc, char **argv) {
    static const char answer[] = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    if (argc != 2)
        return 2;
    signal(SIGTERM, end);
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        char request[4096];
        int connection = accept(atoi(argv[1]), NULL, NULL);
        if (connection < 0)
            continue;
        if (read(connection, request, sizeof request) > 0)
            (void)!write(connection, answer, sizeof answer - 1);
        close(connection);
    }
}
