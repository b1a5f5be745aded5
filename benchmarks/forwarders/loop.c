/* The limit: the least that a program must do to forward packets between two TUN interfaces, or to answer packets.
 *
 * A thread for each direction reads until the interface is empty, writes each packet unchanged, and polls. To answer,
 * one thread does that with one interface, and swaps the addresses of IPv4 packets.
 * Call: `loop offload|plain ROLE LEFT RIGHT`. It speaks the protocol of benchmarks/forwarders; any role but `answer`
 * forwards.
 * With offload, every packet has a virtio header in front and may be a superpacket of 64 KiB.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef TUN_F_USO4 /* Headers older than Linux 6.2. */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define VIRTIO_HEADER 10
#define LARGEST (VIRTIO_HEADER + 65535)

struct direction {
    int source;
    int target;
    int header; /* Bytes before a packet to answer; -1 to forward packets unchanged. */
};

_Noreturn static void fail(const char *what) {
    fprintf(stderr, "loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_tun(const char *name, int offload) {
    const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0)};
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (tun < 0)
        fail("/dev/net/tun");
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(tun, TUNSETIFF, &request) < 0)
        fail(name);
    if (offload && ioctl(tun, TUNSETOFFLOAD, tcp) < 0)
        fail("TUNSETOFFLOAD");
    if (offload) /* Older kernels know no UDP superpackets and refuse; TCP's stay on. */
        ioctl(tun, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6);
    return tun;
}

static void swap_addresses(char *packet) {
    char source[4];

    memcpy(source, packet + 12, 4);
    memcpy(packet + 12, packet + 16, 4);
    memcpy(packet + 16, source, 4);
}

static void *forward(void *argument) {
    const struct direction *way = argument;
    struct pollfd readable = {.fd = way->source, .events = POLLIN};
    char *packet = malloc(LARGEST);

    if (!packet)
        fail("malloc");
    for (;;) {
        ssize_t size = read(way->source, packet, LARGEST);
        if (size >= 0 && way->header >= 0 && packet[way->header] >> 4 == 4)
            swap_addresses(packet + way->header);
        if (size >= 0 && write(way->target, packet, size) < 0)
            continue; /* A packet that the kernel rejects is lost, as on a wire. */
        if (size < 0 && errno == EAGAIN)
            poll(&readable, 1, -1);
        else if (size < 0)
            fail("read");
    }
}

int main(int count, char **arguments) {
    if (count < 3)
        return 2;
    int offload = !strcmp(arguments[1], "offload"), answer = !strcmp(arguments[2], "answer");
    int left = open_tun("left", offload), right = answer ? left : open_tun("right", offload);
    int header = answer ? (offload ? VIRTIO_HEADER : 0) : -1;
    struct direction there = {left, right, header}, back = {right, left, header};
    pthread_t thread;

    puts("made");
    fflush(stdout);
    getchar();
    if (!answer && pthread_create(&thread, NULL, forward, &back))
        fail("pthread_create");
    forward(&there);
}
